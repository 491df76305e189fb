//! Text output of findings.

use super::finding::Finding;
use crate::print::{Output, is_styled};
use crate::wording::counted;
use annotate_snippets::{Level, Origin, Renderer};
use gic_firmware::Severity;
use std::io::{self, Write};

/// Width in columns to which messages are formatted.
const WIDTH: usize = 100;

/// Prints the findings of each file, and then the numbers of errors, warnings, notes and clean
/// files.
pub(super) fn print(out: &mut Output, verdicts: &[(String, Vec<Finding>)]) -> io::Result<()> {
    for (source, findings) in verdicts {
        for finding in findings {
            writeln!(out, "{}\n", spell(source, finding))?;
        }
    }
    let of = |severity| {
        let all = verdicts.iter().flat_map(|(_, findings)| findings);
        all.filter(|finding| finding.rule.severity() == severity).count()
    };
    let clean = verdicts.iter().filter(|(_, findings)| findings.is_empty()).count();
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let (errors, warnings) = (counted(errors, "error"), counted(warnings, "warning"));
    let notes = Some(of(Severity::Note)).filter(|notes| *notes > 0);
    let notes = notes.map(|notes| format!(", {}", counted(notes, "note"))).unwrap_or_default();
    writeln!(
        out,
        "{errors}, {warnings}{notes}; {clean} of {} without findings",
        counted(verdicts.len(), "file")
    )
}

fn spell(source: &str, finding: &Finding) -> String {
    let level = match finding.rule.severity() {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let group = level
        .primary_title(finding.rule.summary())
        .id(finding.rule.name())
        .element(Origin::path(match finding.place.as_str() {
            "" => source.to_owned(),
            place => format!("{source}: {place}"),
        }))
        .element(Level::NOTE.message(finding.message.as_str()))
        .element(Level::HELP.message(finding.rule.fix()));
    let renderer = if is_styled() { Renderer::styled() } else { Renderer::plain() };
    renderer.term_width(WIDTH).render(&[group])
}
