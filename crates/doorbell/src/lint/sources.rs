//! Sources on the command line, and the descriptions that they are.

use super::Place;
use crate::source::holds_tables;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Folders are entered so deep: a link that leads upwards ends here.
const MAX_DEPTH: usize = 16;

/// Files are devicetrees; a folder with a MADT is one machine; another, every `.dtb` below it.
pub(super) fn expand(sources: &[PathBuf]) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for source in sources {
        if !source.is_dir() {
            places.push(Place::Dtb(source.clone()));
            continue;
        }
        if holds_tables(source) {
            places.push(Place::Acpi(source.clone()));
            continue;
        }
        let before = places.len();
        below(source, MAX_DEPTH, &mut places)?;
        if places.len() == before {
            bail!("{}: neither ACPI tables nor devicetrees are below it", source.display());
        }
    }
    Ok(places)
}

fn below(folder: &Path, depth: usize, places: &mut Vec<Place>) -> Result<()> {
    let Some(depth) = depth.checked_sub(1) else { return Ok(()) };
    let name = folder.display();
    let entries = folder.read_dir().with_context(|| format!("cannot read {name}"))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths =
        paths.collect::<Result<Vec<_>, _>>().with_context(|| format!("cannot read {name}"))?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            below(&path, depth, places)?;
        } else if path.extension().is_some_and(|extension| extension == "dtb") {
            places.push(Place::Dtb(path));
        }
    }
    Ok(())
}
