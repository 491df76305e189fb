//! Text output of findings.

use super::finding::Finding;
use crate::print::{self, Output};
use crate::wording::counted;
use gic_firmware::Severity;
use std::io::{self, Write};

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
    let place = match finding.place.as_str() {
        "" => source.to_owned(),
        place => format!("{source}: {place}"),
    };
    let text = print::FindingText {
        severity: finding.rule.severity(),
        summary: finding.rule.summary(),
        rule: finding.rule.name(),
        place: &place,
        message: &finding.message,
        help: finding.rule.fix(),
    };
    text.text()
}
