//! Runs Alioth, another project's VMM, on Linux's KVM, both unchanged and with Doorbell's routes.
//! Its guest has two network devices whose queues have more interrupts than Alioth has routes.

mod build;
mod files;
mod host;
mod report;

use std::process::Command;

use anyhow::{Context, Result};
use doorbell_harness::suite::{Case, OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{hang, process};

use self::files::Files;
pub(crate) use self::host::Host;
use self::report::Report;

/// Lists the cases on a host.
pub(crate) fn cases(host: Host) -> [Case; 2] {
    let name = host.name();
    [
        Case::of(format!("Alioth as it is, {name}"), move || {
            report(host)?.boot("stock")?.judge_stock()
        }),
        Case::of(format!("Alioth with our routes, {name}"), move || {
            report(host)?.boot("routed")?.judge_routed()
        }),
    ]
}

/// Returns the report of Alioth's guest, booted with Alioth's routes and with Doorbell's.
fn report(host: Host) -> Result<&'static Report> {
    static REPORT: Shared<Report> = Shared::new();
    REPORT.get(|| boot(workspace::this()?, host))
}

fn boot(workspace: &Workspace, host: Host) -> Result<Report> {
    let mut qemu = host.command(workspace)?;
    let program = build::build(workspace, host)?;
    let files = Files::of(workspace, host, &program).or_absent("the guest")?;
    qemu.arg("-kernel").arg(&files.kernel).arg("-initrd").arg(&files.initramfs);
    let (mut report, mut outcome) = watch(&mut qemu);
    if let Err(error) = &outcome
        && !report.has_our_routes()
    {
        // Our routes were not in use yet, so they did not cause the hang. QEMU's emulation of
        // nested guests may have.
        eprintln!("booting again: {error:#}");
        (report, outcome) = watch(&mut qemu);
    }
    outcome?;
    eprintln!("{}:\n{report}", host.name());
    Ok(report)
}

/// Runs the machine until it turns itself off, and returns its report.
fn watch(qemu: &mut Command) -> (Report, Result<()>) {
    let mut report = Report::default();
    let outcome = process::watch(qemu, hang::RUN, |line| report.line(line));
    let outcome = outcome.with_context(|| format!("the last line is `{}`", report.last()));
    (report, outcome.map(drop))
}
