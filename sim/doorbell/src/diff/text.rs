//! Text output: a line for each difference.

use super::difference::{Difference, Differences, Section};
use crate::print::{Output, wrapped};
use crate::wording::counted;
use std::io::{self, Write};

pub(super) fn print(out: &mut Output, found: &Differences) -> io::Result<()> {
    let mut section = None;
    for difference in &found.list {
        if section != Some(difference.section) {
            section = Some(difference.section);
            writeln!(out, "{}:", title(difference.section))?;
        }
        writeln!(out, "  {}", wrapped(&line(difference)))?;
    }
    match (found.count(), found.omitted) {
        (0, _) => writeln!(out, "no differences"),
        (all, 0) => writeln!(out, "{}", counted(all, "difference")),
        (all, omitted) => {
            writeln!(out, "{}, {omitted} of them not listed", counted(all, "difference"))
        }
    }
}

const fn title(section: Section) -> &'static str {
    match section {
        Section::Machine => "machine",
        Section::Cpus => "CPUs",
        Section::Gics => "GICs",
        Section::Controllers => "MSI controllers",
        Section::Iommus => "IOMMUs",
        Section::Routes => "routes",
        Section::Isolation => "isolation",
        Section::Wires => "wired interrupts",
        Section::Findings => "findings",
    }
}

fn line(difference: &Difference) -> String {
    let Difference { section, object, was, field, before, after } = difference;
    let [before, after] = [before, after].map(Option::as_deref);
    if *section == Section::Findings {
        let (sign, message) = match (before, after) {
            (_, Some(message)) => ("new", message),
            (message, None) => ("gone", message.unwrap_or_default()),
        };
        return format!("{sign} {}: {object}: {message}", field.as_deref().unwrap_or_default());
    }
    let Some(field) = field else {
        let (change, facts) = match (before, after) {
            (_, Some(facts)) => ("added", facts),
            (facts, None) => ("removed", facts.unwrap_or_default()),
        };
        let facts = if facts.is_empty() { String::new() } else { format!(" ({facts})") };
        return format!("{object}: {change}{facts}");
    };
    if field == "node" {
        return format!("{}: now {object}", was.as_deref().unwrap_or_default());
    }
    format!("{object}: {field} {} → {}", before.unwrap_or("none"), after.unwrap_or("none"))
}
