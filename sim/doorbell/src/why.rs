//! `doorbell why`: what is known about a rule, an obstacle or a fact, each of which has a code.

use crate::cli::WhyArgs;
use crate::exit::Outcome;
use crate::print::{self, Output, wrapped};
use crate::table::Table;
use crate::{findings, lint, snapshot};
use anyhow::{Result, bail};
use doorbell_inspection::lint::RuleText;
use msi_types::explain::{Code, Fact, Obstacle, SetupFault, Stage, Statement};
use std::io::{self, Write};

/// Prints what is known about a code, or all codes.
pub(crate) fn why(args: &WhyArgs) -> Result<Outcome> {
    let Some(code) = &args.code else {
        print::text(list)?;
        return Ok(Outcome::Good);
    };
    if let Some(rule) = rules().find(|rule| rule.name == code || is(rule.code, code)) {
        print::text(|out| findings::explain(out, &rule))?;
    } else if let Some(of) = statements().find(|of| is(of.code, code)) {
        print::text(|out| state(out, &of))?;
    } else {
        bail!("nothing has the code or name {code:?}; `doorbell why` lists all codes");
    }
    Ok(Outcome::Good)
}

fn is(code: Code, text: &str) -> bool {
    code.to_string().eq_ignore_ascii_case(text)
}

fn rules() -> impl Iterator<Item = RuleText> {
    lint::rules().into_iter().chain(snapshot::rules())
}

/// Returns what explanations can state.
fn statements() -> impl Iterator<Item = Statement> {
    let all = [Obstacle::STATEMENTS, SetupFault::STATEMENTS, Fact::STATEMENTS];
    all.into_iter().flatten().copied().filter(|of| !of.text.starts_with("{fault}"))
}

fn list(out: &mut Output) -> io::Result<()> {
    let mut rows = Table::new(["code", "about", "says"]);
    for rule in rules() {
        rows.row([&rule.code.to_string(), rule.name, rule.summary]);
    }
    for of in statements() {
        rows.row([&of.code.to_string(), of.stage.name(), of.meaning.trim()]);
    }
    writeln!(out, "{rows}")
}

/// Prints what an explanation can state.
fn state(out: &mut Output, of: &Statement) -> io::Result<()> {
    for (name, text) in [
        ("Cause", of.meaning.trim()),
        ("Example", &format!("{}: {}", of.stage, with_names(of.text))),
        ("Mend", if of.fix.is_empty() { "none, or it depends on the values" } else { of.fix }),
        ("Code", &of.code.to_string()),
        ("Source", source_of_stage(of.stage)),
    ] {
        writeln!(out, "{}", wrapped(&format!("{name}: {text}")))?;
    }
    Ok(())
}

/// Replaces the places of values in a text by the values' names.
fn with_names(text: &str) -> String {
    let mut parts = text.split('{');
    let mut named = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (value, rest) = part.split_once('}').unwrap_or((part, ""));
        let name = value.split(':').next().filter(|name| !name.is_empty());
        named.extend(["<", name.unwrap_or("…"), ">", rest]);
    }
    named
}

/// Returns the documents that define what an interrupt does at a stage.
const fn source_of_stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Endpoint => "PCI Local Bus 3.0, section 6.8 (MSI and MSI-X)",
        Stage::Bus => "PCI Local Bus 3.0, section 6.2 (Command register)",
        Stage::Doorbell => "Arm IHI 0069H, chapter 12 (GITS_TRANSLATER, GICD_SETSPI_NSR)",
        Stage::Translation => "Arm IHI 0069H, chapter 5 (the ITS)",
        Stage::Configuration => "Arm IHI 0069H, chapters 4 and 5 (configuration of SPIs and LPIs)",
        Stage::Pending | Stage::Target => "Arm IHI 0069H, chapter 4 (handling of interrupts)",
        Stage::Interface => "Arm IHI 0069H, chapter 4 (priorities, groups)",
        _ => "the kernel's interrupt core, such as Linux's kernel/irq",
    }
}
