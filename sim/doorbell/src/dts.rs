//! Devicetree sources: compiles them with `cpp` and `dtc`, and finds the text that sets each node
//! and property.
//!
//! Sources are not trusted. We resolve includes ourselves, so that the compilers open no files: a
//! source can only include text from its own folder and from the folders of `-I`.

mod files;
mod positions;
mod preprocess;

use crate::compiler::{self, CPP, DTC};
use anyhow::{Context, Result, bail};
use doorbell_inspection::MAX_BYTES;
use files::{MAX_TEXT, SourceFiles};
use std::path::{Path, PathBuf};

pub(crate) use files::plain;
pub(crate) use positions::{Positions, location};

/// Options for compiling a source.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Compilation<'c> {
    /// Folders to search for included files.
    pub(crate) folders: &'c [PathBuf],
    /// `true` if overlays should find nodes by their labels.
    pub(crate) with_symbols: bool,
}

/// Compiles the source `bytes`, which were read from `path`, to a flattened devicetree.
pub(crate) fn compile(
    path: &Path,
    bytes: &[u8],
    how: Compilation<'_>,
) -> Result<(Vec<u8>, Positions)> {
    let mut files = SourceFiles::new(path, bytes, how.folders)?;
    let expanded = preprocess::expand(&mut files)?;
    // Even if `cpp` finds an include where we don't, it does not open the file.
    let closed = ["-nostdinc", "-fmax-include-depth=1", "-fno-diagnostics-show-caret"];
    let more = ["-undef", "-D__DTS__", "-x", "assembler-with-cpp", "-"];
    let arguments = [&closed[..], &more].concat();
    let text = compiler::run(&CPP, &arguments, expanded.as_bytes(), MAX_TEXT)
        .map_err(|error| files.explained(&error))?;
    let text = String::from_utf8_lossy(&text);
    if preprocess::opens_files(&text) {
        bail!("{}: a hidden include is not allowed", files.path(0));
    }
    let compiler = |form: &str, more: &[&str], limit| {
        let symbols: &[&str] = if how.with_symbols { &["-@"] } else { &[] };
        let arguments = [&["-q", "-I", "dts", "-O", form], more, symbols, &["-"]].concat();
        compiler::run(&DTC, &arguments, text.as_bytes(), limit)
            .map_err(|error| files.explained(&error))
    };
    let blob = compiler("dtb", &[], usize::try_from(MAX_BYTES).unwrap_or(MAX_TEXT))?;
    let annotated = compiler("dts", &["-T", "-T"], MAX_TEXT)?;
    let annotated = String::from_utf8(annotated).context("`dtc` wrote text that is not UTF-8")?;
    Ok((blob, Positions::new(files, &annotated)))
}
