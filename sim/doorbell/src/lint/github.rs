//! Writes findings as GitHub workflow commands, which annotate a run and its pull request.

use super::row::Row;
use crate::print::Output;
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
    let message = format!("{place}{}\n{}", row.message, row.help);
    format!(
        "::{kind} file={},title={}::{}",
        property(row.source.trim_start_matches("./")),
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
            source: "./100%,a:b.dtb",
            rule: "mbi-range",
            severity: Severity::Warning,
            place: "/soc: reg".to_owned(),
            message: "50%\r\n::error::",
            help: "Help.",
            fingerprint: "0:1",
            baseline: None,
        };
        assert_eq!(
            command(&row),
            "::warning file=100%25%2Ca%3Ab.dtb,title=mbi-range\
             ::/soc: reg: 50%25%0D%0A::error::%0AHelp."
        );
    }
}
