//! Lists the rules and explains a single rule.

use super::rule::LintRule;
use crate::print::Output;
use crate::table::Table;
use std::io::{self, Write};

/// Prints the rules.
pub(super) fn list(out: &mut Output) -> io::Result<()> {
    let mut rows = Table::new(["rule", "severity", "finds"]);
    for rule in LintRule::all() {
        rows.row([rule.name(), &rule.severity().to_string(), rule.summary()]);
    }
    writeln!(out, "{rows}")
}

/// Prints a rule's rationale, with an example of the fault and the fix.
pub(super) fn explain(out: &mut Output, rule: LintRule) -> io::Result<()> {
    writeln!(out, "{}[{}]: {}\n", rule.severity(), rule.name(), rule.summary())?;
    let mut is_code = false;
    for line in rule.explanation().lines() {
        match line.strip_prefix("## ") {
            _ if line.starts_with("```") => is_code = !is_code,
            Some(heading) => writeln!(out, "{heading}:")?,
            None if is_code => writeln!(out, "    {line}")?,
            None => writeln!(out, "{line}")?,
        }
    }
    writeln!(out, "\nHelp: {}", rule.help())
}
