//! Writes findings as GitHub workflow commands, which annotate a run and its pull request.

use super::text::by_overlay;
use crate::print::Output;
use doorbell_inspection::lint::{Region, Row};
use gic_firmware::Severity;
use std::io::{self, Write};

/// Prints one command for each finding.
pub(super) fn print<'r>(
    out: &mut Output,
    rows: impl IntoIterator<Item = &'r Row<'r>>,
) -> io::Result<()> {
    for row in rows {
        writeln!(out, "{}", command(row))?;
    }
    Ok(())
}

fn command(row: &Row<'_>) -> String {
    let kind = match row.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let place = if row.place.is_empty() { String::new() } else { format!("{}: ", row.place) };
    let overlay = row.overlay.map_or_else(String::new, |name| format!("\n{}", by_overlay(name)));
    let message = format!("{place}{}\n{}{overlay}", row.message, row.help);
    let region = row.region.map_or_else(String::new, |region| {
        let Region { line, column, end_line, end_column, .. } = region;
        // GitHub's columns include the last character, and it ignores them if there are two lines.
        format!(",line={line},endLine={end_line},col={column},endColumn={}", end_column.max(2) - 1)
    });
    format!(
        "::{kind} file={}{region},title={}::{}",
        property(row.file().trim_start_matches("./")),
        property(row.rule),
        escaped(&message)
    )
}

/// Escapes a message: the runner decodes `%25`, `%0D` and `%0A`.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// Escapes a property, which also ends at a colon or a comma.
fn property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters_are_escaped() {
        let row = Row {
            source: "board",
            rule: "mbi-range",
            severity: Severity::Warning,
            place: "/soc: reg".to_owned(),
            message: "50%\r\n::error::",
            help: "Help.",
            fingerprint: "0:1",
            baseline: None,
            region: None,
            overlay: None,
            path: "./100%,a:b.dtb",
        };
        assert_eq!(
            command(&row),
            "::warning file=100%25%2Ca%3Ab.dtb,title=mbi-range\
             ::/soc: reg: 50%25%0D%0A::error::%0AHelp."
        );
    }
}
