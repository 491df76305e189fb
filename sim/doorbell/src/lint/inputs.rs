//! Expands the sources on the command line into files and folders.

use crate::source::holds_tables;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Maximum folder depth. The limit also terminates the walk through a loop of symbolic links.
const MAX_DEPTH: usize = 16;

/// A file or folder to read firmware from.
#[derive(Clone, Debug)]
pub(super) enum FirmwareInput {
    /// A devicetree.
    Dtb(PathBuf),
    /// A folder of ACPI tables.
    Acpi(PathBuf),
}

/// Expands sources: a file is a devicetree, a folder with a MADT is one machine, and any other
/// folder is replaced by all `.dtb` files below it.
pub(super) fn expand(sources: &[PathBuf]) -> Result<Vec<FirmwareInput>> {
    let mut inputs = Vec::new();
    for source in sources {
        if !source.is_dir() {
            inputs.push(FirmwareInput::Dtb(source.clone()));
            continue;
        }
        if holds_tables(source) {
            inputs.push(FirmwareInput::Acpi(source.clone()));
            continue;
        }
        let before = inputs.len();
        below(source, MAX_DEPTH, &mut inputs)?;
        if inputs.len() == before {
            bail!("{} contains neither ACPI tables nor devicetrees", source.display());
        }
    }
    Ok(inputs)
}

fn below(folder: &Path, depth: usize, inputs: &mut Vec<FirmwareInput>) -> Result<()> {
    let Some(depth) = depth.checked_sub(1) else { return Ok(()) };
    let name = folder.display();
    let entries = folder.read_dir().with_context(|| format!("cannot read {name}"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths =
        paths.collect::<Result<Vec<_>, _>>().with_context(|| format!("cannot read {name}"))?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            below(&path, depth, inputs)?;
        } else if path.extension().is_some_and(|extension| extension == "dtb") {
            inputs.push(FirmwareInput::Dtb(path));
        }
    }
    Ok(())
}
