//! `doorbell run`: the main job.

mod json;
mod text;

use crate::cli::RunArgs;
use crate::exit::Outcome;
use crate::inspect::{Inspection, print_text};
use crate::print;
use crate::source::Source;
use anyhow::Result;
use doorbell_machine::{BuildOptions, Progress, RunOptions};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::num::NonZeroU16;

/// Builds the machine, delivers every device's interrupts, and shows where each went.
pub(crate) fn run(args: &RunArgs) -> Result<Outcome> {
    let source = match (&args.dtb, &args.acpi) {
        (Some(path), _) => Source::dtb(path)?,
        (None, Some(folder)) => Source::acpi(folder)?,
        (None, None) => Source::embedded(args.machine.as_deref())?,
    };
    let options = BuildOptions {
        cpus: args.cpus.and_then(cpu_limit),
        controller: args.controller.into(),
        ..BuildOptions::default()
    };
    let machine = match doorbell_machine::build(&source.description, &options) {
        Ok(machine) => machine,
        Err(refusal) => return refuse(&source, &refusal, args),
    };
    let defaults = RunOptions::default();
    let options = RunOptions {
        messages: args.messages.unwrap_or(defaults.messages),
        seed: args.seed,
        ..defaults
    };
    let bar = progress_bar();
    let report = doorbell_machine::run(machine, &options, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    let report = report?;
    if args.output.json {
        print::json(&json::Document::of(&source.name, &report))?;
    } else {
        print::text(|out| text::print(out, &source.name, &report))?;
    }
    Ok(if report.totals.is_clean() { Outcome::Good } else { Outcome::Findings })
}

fn cpu_limit(cpus: u32) -> Option<NonZeroU16> {
    u16::try_from(cpus).ok().and_then(NonZeroU16::new)
}

/// There is no machine to run: says why, and what the description does have.
fn refuse(source: &Source, refusal: &doorbell_machine::Refusal, args: &RunArgs) -> Result<Outcome> {
    let inspection = Inspection::of(source);
    if args.output.json {
        print::json(&inspection)?;
    } else {
        print::text(|out| print_text(out, &inspection))?;
    }
    print::tell(format_args!("{}: nothing to deliver: {refusal}", source.name));
    Ok(Outcome::CouldNotRun)
}

/// A bar on a terminal; nothing elsewhere.
fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} messages, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.total);
    bar.set_position(progress.sent);
}
