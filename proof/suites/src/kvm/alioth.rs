//! Runs Alioth, another project's VMM, on Linux's KVM, both unchanged and with Doorbell's routes.
//! Its guest has two network devices whose queues have more interrupts than Alioth has routes.

mod build;
mod files;
mod report;

use std::process::Command;

use anyhow::{Context, Result};
use doorbell_harness::qemu::{CONSOLE, PROGRAM, Version};
use doorbell_harness::suite::{Case, OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{hang, process};

use self::files::Files;
use self::report::Report;
use crate::fetched;

/// A machine whose CPU has the Virtualization Host Extensions, so that the kernel stays at EL2. A
/// single emulated CPU never has to wait for another CPU that a busy host does not schedule.
const MACHINE: &[&str] = &[
    "-M",
    "virt,gic-version=3,virtualization=on",
    "-cpu",
    "neoverse-n1",
    "-smp",
    "1",
    "-m",
    "1536M",
    "-append",
    "console=ttyAMA0 quiet panic=-1",
];

/// Lists the cases.
pub(crate) fn cases() -> [Case; 2] {
    [
        Case::of("Alioth as it is", || report()?.boot("stock")?.judge_stock()),
        Case::of("Alioth with our routes", || report()?.boot("routed")?.judge_routed()),
    ]
}

/// Returns the report of Alioth's guest, booted with Alioth's routes and with Doorbell's.
fn report() -> Result<&'static Report> {
    static REPORT: Shared<Report> = Shared::new();
    REPORT.get(|| boot(workspace::this()?))
}

fn boot(workspace: &Workspace) -> Result<Report> {
    let mut qemu = fetched::qemu(Version::Backports)?.command(PROGRAM);
    qemu.args(CONSOLE).args(MACHINE);
    let program = build::build(workspace)?;
    let files = Files::of(workspace, &program).or_absent("the guest")?;
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
    eprintln!("{report}");
    Ok(report)
}

/// Runs the machine until it turns itself off, and returns its report.
fn watch(qemu: &mut Command) -> (Report, Result<()>) {
    let mut report = Report::default();
    let outcome = process::watch(qemu, hang::RUN, |line| report.line(line));
    let outcome = outcome.with_context(|| format!("the last line is `{}`", report.last()));
    (report, outcome.map(drop))
}
