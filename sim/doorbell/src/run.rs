//! `doorbell run`: delivers interrupts from every device.

mod faults;
mod json;
mod text;

use crate::cli::{Disturbance, RunArgs, WorkloadArgs};
use crate::exit::Outcome;
use crate::inspect::print_text;
use crate::print::{self, wrapped};
use crate::source;
use crate::trace::{self, TraceFile};
use anyhow::Result;
use doorbell_inspection::Source;
use doorbell_inspection::inspect::Inspection;
use doorbell_machine::{BuildOptions, Machine, Migration, Progress, Report, RunOptions, simulate};
use gic_firmware::lint::KnownRegisters;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write as _;
use std::num::NonZeroU16;
use std::path::Path;

pub(crate) use text::{disturbances, faults, omissions, outcome as device_outcome, run_verdict};

/// Builds the machine, delivers every device's interrupts, and shows where each one arrived.
pub(crate) fn run(args: &RunArgs, file: Option<&Path>) -> Result<Outcome> {
    let how = args.include.compilation();
    let source = match (file.or(args.dtb.as_deref()), &args.acpi) {
        (Some(path), _) => source::at(path, how)?,
        (None, Some(folder)) => source::acpi(folder)?,
        (None, None) if args.running => source::running()?,
        (None, None) => source::embedded(args.machine.as_deref())?,
    };
    let recorder = args.trace.as_ref().map(|_| trace::recorder(&args.workload));
    let options = BuildOptions { recorder: recorder.clone(), ..build_options(&args.workload) };
    let machine = match doorbell_machine::build(&source.description, &options) {
        Ok(machine) => machine,
        Err(refusal) => return refuse(&source, &refusal, args),
    };
    let file = args.trace.as_ref().zip(recorder);
    let file = file.map(|(path, recorder)| TraceFile::create(path, recorder)).transpose()?;
    let report = deliver(machine, &args.workload)?;
    if let Some(file) = file {
        file.write(&report)?;
    }
    let errors = faults::of(&source);
    let document = json::document(&source.name, &report, args, &errors);
    print::object(args.output.json, &document, |out| {
        text::print(out, &source.name, &report, args)?;
        let hint = faults::hint(&source, &errors);
        hint.map_or(Ok(()), |hint| writeln!(out, "{}", wrapped(&hint)))
    })?;
    Ok(if report.totals.is_clean() { Outcome::Good } else { Outcome::Findings })
}

pub(crate) fn build_options(args: &WorkloadArgs) -> BuildOptions {
    let migrates = args.disturb.contains(&Disturbance::Migrate);
    BuildOptions {
        cpus: args.cpus.and_then(cpu_limit),
        controller: args.controller,
        migration: if migrates {
            Migration::AtRandom { seed: args.seed }
        } else {
            Migration::Never
        },
        ..BuildOptions::default()
    }
}

fn cpu_limit(cpus: u32) -> Option<NonZeroU16> {
    u16::try_from(cpus).ok().and_then(NonZeroU16::new)
}

fn run_options(args: &WorkloadArgs) -> RunOptions {
    let mut options = RunOptions { seed: args.seed, ..RunOptions::default() };
    options.messages = args.messages.unwrap_or(options.messages);
    options.disturbances.extend(args.disturb.iter().filter_map(|kind| match kind {
        // The machine migrates from the start, so that this is an option of its build.
        Disturbance::Migrate => None,
        Disturbance::Hotplug => Some(doorbell_machine::Disturbance::CpuHotplug),
        Disturbance::Remove => Some(doorbell_machine::Disturbance::DeviceHotplug),
        Disturbance::Suspend => Some(doorbell_machine::Disturbance::Suspensions),
    }));
    options
}

/// Delivers interrupts from every device.
pub(crate) fn deliver(machine: Machine, args: &WorkloadArgs) -> Result<Report> {
    if args.simulate { simulated(machine, args) } else { on_threads(machine, args) }
}

/// Delivers interrupts from every device on one thread.
pub(crate) fn simulated(machine: Machine, args: &WorkloadArgs) -> Result<Report> {
    Ok(simulate(machine, &run_options(args))?)
}

fn on_threads(machine: Machine, args: &WorkloadArgs) -> Result<Report> {
    let bar = progress_bar();
    let report =
        doorbell_machine::run(machine, &run_options(args), &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    Ok(report?)
}

/// Prints the reason why a machine can't be run, followed by the contents of its description.
fn refuse(source: &Source, refusal: &doorbell_machine::Refusal, args: &RunArgs) -> Result<Outcome> {
    let inspection = Inspection::of(source, &KnownRegisters::default());
    print::object(args.output.json, &inspection, |out| print_text(out, &inspection))?;
    print::tell(format_args!("{}: nothing to deliver: {refusal}", source.name));
    if let Some(hint) = faults::hint(source, &faults::of(source)) {
        print::tell(hint);
    }
    Ok(Outcome::CouldNotRun)
}

/// Creates a progress bar. The bar is hidden unless standard error is a terminal.
fn progress_bar() -> ProgressBar {
    if !print::is_animated() {
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
