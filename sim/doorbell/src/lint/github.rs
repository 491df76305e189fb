//! Writes findings as GitHub workflow commands, which annotate a run and its pull request.

use crate::findings::by_overlay;
use crate::print::Output;
use doorbell_inspection::Location;
use doorbell_inspection::lint::{Row, RuleText};
use gic_firmware::Severity;
use std::io::{self, Write};

/// Prints one command for each finding.
pub(super) fn print<'r>(
    out: &mut Output,
    mut rows: impl Iterator<Item = &'r Row>,
) -> io::Result<()> {
    rows.try_for_each(|row| writeln!(out, "{}", command(row)))
}

fn command(row: &Row) -> String {
    let kind = match row.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let place = match row.origin.to_string() {
        place if place.is_empty() => place,
        place => format!("{place}: "),
    };
    let overlay = row.overlay.as_deref().map(|name| format!("\n{}", by_overlay(name)));
    let RuleText { help, code, .. } = row.rule;
    let message = format!("{place}{}\n{help}\n{code}", row.message);
    let region = row.location.as_ref().map_or_else(String::new, |region| {
        let Location { line, column, end_line, end_column, .. } = region;
        // GitHub's columns include the last character, and it ignores them if there are two lines.
        format!(",line={line},endLine={end_line},col={column},endColumn={}", end_column.max(&2) - 1)
    });
    format!(
        "::{kind} file={}{region},title={}::{}",
        property(row.file().trim_start_matches("./")),
        property(row.rule.name),
        escaped(&(message + &overlay.unwrap_or_default()))
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
    use doorbell_inspection::lint::place;
    use gic_firmware::Rule;

    #[test]
    fn delimiters_are_escaped() {
        let (rule, message) = (Rule::SilentIommu.into(), "50%\r\n::error::".to_owned());
        let mut row = Row::new("./100%,a:b.dtb", rule, place::origin("/soc"), message);
        row.rule.help = "Help.";
        assert_eq!(
            command(&row),
            "::warning file=100%25%2Ca%3Ab.dtb,title=silent-iommu\
             ::/soc: 50%25%0D%0A::error::%0AHelp.%0ADB0111"
        );
    }
}
