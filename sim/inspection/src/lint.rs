//! Findings in machine-readable form, and the source text that they point at.

mod excerpt;
pub mod place;
mod row;

use crate::json;
use crate::source::Source;
use gic_firmware::lint::{self, KnownRegisters};
use std::io::{self, Write};

pub use excerpt::Excerpts;
pub use row::{BaselineState, Region, Row};

/// Writes the findings about a source as JSON rows.
pub fn write_json(out: impl Write, source: &Source, known: &KnownRegisters) -> io::Result<()> {
    let found = lint::check(&source.description, known);
    let fingerprints = place::fingerprints(found.iter());
    let overlays = source.brought(&found, known);
    let rows = found.iter().zip(&fingerprints).zip(&overlays);
    let rows = rows.map(|((finding, fingerprint), overlay)| Row {
        overlay: overlay.as_deref(),
        ..Row::of(&source.name, finding, fingerprint)
    });
    let rows: Vec<Row<'_>> = rows.collect();
    json::write(out, &rows)
}
