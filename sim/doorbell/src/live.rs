//! `doorbell live`: compares the interrupts of a running Linux with its firmware's description.

mod config;
mod firmware;
#[cfg(test)]
mod fixture;
mod flatten;
mod functions;
mod irqs;
mod judge;
mod log;
mod report;
mod root;
mod system;
#[cfg(test)]
mod tests;
mod text;

use crate::cli::LiveArgs;
use crate::exit::Outcome;
use crate::print;
use anyhow::{Context, Result, bail};
use functions::Address;
use report::{DeviceRow, Report};
use root::Root;
use std::thread;
use std::time::Duration;

/// Prints how Linux receives each device's interrupts, or explains the interrupts of one device.
pub(crate) fn live(args: &LiveArgs) -> Result<Outcome> {
    let wanted = args.explain.as_deref().map(str::parse::<Address>).transpose()?;
    let root = Root::new(&args.root);
    let report = Report::of(&root);
    if report.firmware.is_none() && report.devices.is_empty() {
        bail!(
            "{} contains neither the firmware nor the PCI devices of a Linux system",
            args.root.display()
        );
    }
    if let Some(seconds) = args.watch {
        thread::sleep(Duration::from_secs(seconds.into()));
        let later = Report::of(&root);
        let silent = report.silent_until(&later);
        print::rows(args.output.json, &silent, |out| text::print_silent(out, &silent))?;
        return Ok(outcome(&report, silent.iter().any(|one| one.fault)));
    }
    if args.paste {
        print::text(|out| text::paste(out, &root, &report))?;
        return Ok(outcome(&report, report.has_findings()));
    }
    let Some(address) = wanted else {
        print::object(args.output.json, &report, |out| text::print(out, &report))?;
        return Ok(outcome(&report, report.has_findings()));
    };
    let is_wanted = |device: &&DeviceRow| device.id == address.to_string();
    let device = report.devices.iter().find(is_wanted);
    let device = device.with_context(|| format!("no PCI device has the address {address}"))?;
    print::object(args.output.json, device, |out| text::explain(out, &report, device))?;
    let is_silent = report.silent && device.messages() == Some(0);
    Ok(outcome(&report, is_silent || device.is_finding()))
}

/// Returns the exit status. A run that could not read firmware does not count as clean.
const fn outcome(report: &Report, has_findings: bool) -> Outcome {
    if has_findings {
        Outcome::Findings
    } else if report.firmware.is_none() && !report.problems.is_empty() {
        Outcome::CouldNotRun
    } else {
        Outcome::Good
    }
}
