//! Findings in machine-readable form, and the source text that they point at.

mod excerpt;
pub mod place;
mod row;

use crate::json;
use crate::source::Source;
use gic_firmware::Finding;
use gic_firmware::lint::{self, KnownRegisters};
use std::io::{self, Write};

pub use excerpt::Excerpts;
pub use row::{BaselineState, Row, RuleText};

/// Writes the findings about a source as JSON rows.
pub fn write_json(out: impl Write, source: &Source, known: &KnownRegisters) -> io::Result<()> {
    json::write(out, &rows(source, lint::check(&source.description, known), known))
}

/// Returns the rows of a source's findings.
pub fn rows(source: &Source, findings: Vec<Finding>, known: &KnownRegisters) -> Vec<Row> {
    let fingerprints = place::fingerprints(findings.iter());
    let overlays = source.brought(&findings, known);
    let rows = findings.into_iter().zip(fingerprints).zip(overlays);
    let row = |((finding, fingerprint), overlay): ((Finding, String), _)| Row {
        fingerprint: Some(fingerprint),
        location: source.locate(&finding.origin),
        overlay,
        ..Row::new(&source.name, finding.rule.into(), finding.origin, finding.message)
    };
    rows.map(row).collect()
}
