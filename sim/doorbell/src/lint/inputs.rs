//! Expands the sources on the command line into files and folders.

use crate::dts::Compilation;
use crate::source::{self, holds_tables};
use anyhow::{Context, Error, Result, anyhow, bail};
use doorbell_inspection::is_stdin;
use doorbell_inspection::{Source, is_overlay, is_table_source};
use std::path::{Path, PathBuf};

/// Maximum folder depth. The limit also terminates the walk through a loop of symbolic links.
const MAX_DEPTH: usize = 16;

/// A file or folder to read firmware from.
#[derive(Debug)]
pub(super) enum FirmwareInput {
    /// A devicetree, the source of an ACPI table, or standard input; and overlays that are applied
    /// to the devicetree.
    Dtb(PathBuf, Vec<PathBuf>),
    /// A folder of ACPI tables.
    Acpi(PathBuf),
    /// An embedded machine.
    Embedded(String),
    /// The firmware of the running machine.
    Running,
    /// A folder without firmware, or one that cannot be read.
    Unusable(PathBuf, Error),
}

impl FirmwareInput {
    /// Reads the firmware.
    pub(super) fn open(&self, how: Compilation<'_>) -> Result<Source> {
        match self {
            Self::Dtb(path, overlays) if overlays.is_empty() => source::file(path, how),
            Self::Dtb(base, overlays) => source::overlaid(base, overlays, how),
            Self::Acpi(path) => source::acpi(path),
            Self::Embedded(name) => source::embedded(Some(name)),
            Self::Running => source::running(),
            Self::Unusable(_, error) => bail!("{error:#}"),
        }
    }

    /// Returns the file that findings without a position are about: the base of overlays.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Dtb(base, overlays) if !overlays.is_empty() => base.display().to_string(),
            _ => self.name(),
        }
    }

    /// Returns the name of the source as it appears in findings.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Dtb(path, _) if is_stdin(path) => String::from("stdin"),
            Self::Dtb(base, overlays) => source::overlaid_name(base, overlays),
            Self::Acpi(path) | Self::Unusable(path, _) => path.display().to_string(),
            Self::Embedded(name) => name.clone(),
            Self::Running => String::from("the running machine"),
        }
    }
}

/// Expands sources: a file is a devicetree or an overlay of the devicetree before it, a folder with
/// a MADT is one machine, and any other folder is replaced by all `.dtb` files below it. Sources of
/// tables are one machine if they are in one folder.
///
/// # Errors
/// Returns an error if standard input is named twice.
pub(super) fn expand(sources: &[PathBuf]) -> Result<Vec<FirmwareInput>> {
    if sources.iter().filter(|source| is_stdin(source)).count() > 1 {
        bail!("standard input can be only one of the sources");
    }
    let mut inputs = Vec::new();
    for source in sources {
        if is_overlay(source) {
            overlay(source, &mut inputs);
        } else if !source.is_dir() {
            let is_same_machine = |input: &FirmwareInput| {
                matches!(input, FirmwareInput::Dtb(other, _)
                    if is_table_source(other) && folder_of(other) == folder_of(source))
            };
            if !is_table_source(source) || !inputs.iter().any(is_same_machine) {
                inputs.push(FirmwareInput::Dtb(source.clone(), Vec::new()));
            }
        } else if holds_tables(source) {
            inputs.push(FirmwareInput::Acpi(source.clone()));
        } else {
            folder(source, &mut inputs);
        }
    }
    Ok(inputs)
}

/// Returns the folder of a file, without symbolic links.
fn folder_of(path: &Path) -> Option<PathBuf> {
    Path::new(".").join(path).parent().and_then(|folder| folder.canonicalize().ok())
}

/// Adds an overlay to the devicetree before it.
fn overlay(source: &Path, inputs: &mut Vec<FirmwareInput>) {
    let overlay = source.to_owned();
    if let Some(FirmwareInput::Dtb(_, overlays)) = inputs.last_mut() {
        return overlays.push(overlay);
    }
    let error = anyhow!("{}: name the devicetree before its overlays", source.display());
    inputs.push(FirmwareInput::Unusable(overlay, error));
}

fn folder(source: &Path, inputs: &mut Vec<FirmwareInput>) {
    let before = inputs.len();
    below(source, MAX_DEPTH, inputs);
    if inputs.len() == before {
        let error = anyhow!("{} contains neither ACPI tables nor devicetrees", source.display());
        inputs.push(FirmwareInput::Unusable(source.to_owned(), error));
    }
}

fn below(folder: &Path, depth: usize, inputs: &mut Vec<FirmwareInput>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    let paths = match entries(folder) {
        Ok(paths) => paths,
        Err(error) => return inputs.push(FirmwareInput::Unusable(folder.to_owned(), error)),
    };
    for path in paths {
        if path.is_dir() {
            below(&path, depth, inputs);
        } else if path.extension().is_some_and(|extension| extension == "dtb") {
            inputs.push(FirmwareInput::Dtb(path, Vec::new()));
        }
    }
}

/// Returns the paths in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = folder.read_dir().and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
    });
    let mut paths = entries.with_context(|| format!("cannot read {}", folder.display()))?;
    paths.sort();
    Ok(paths)
}
