//! Runs Alioth, another project's VMM, on Linux's KVM, both unchanged and with Doorbell's routes.
//! Its guest has two network devices whose queues have more interrupts than Alioth has routes.

mod files;

use std::env::consts;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use doorbell_harness::apt::{Apt, Suite};
use doorbell_harness::dtb::Tools;
use doorbell_harness::suite::{Absent, Case, OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{cache, process};
use doorbell_suites::alioth::Report;

use files::Files;

/// Time after which the boots count as hung. Two boots take a minute, or five on a busy machine.
const LIMIT: Duration = Duration::from_mins(10);
/// Time limit of a case. The first case builds the monitor and boots it.
const CASE_LIMIT: Duration = Duration::from_mins(30);
const QEMU: &str = "qemu-system-x86_64";
/// A CPU that can run guests. QEMU emulates only AMD's virtualization. A single emulated CPU never
/// has to wait for another CPU that a busy host does not schedule.
const MACHINE: &[&str] = &["-M", "q35", "-cpu", "EPYC,+svm,+npt", "-smp", "1", "-m", "1536M"];
const SURROUNDINGS: &[&str] =
    &["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"];
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1";
/// Architecture of the monitor's machine, which runs in QEMU. QEMU's programs come from packages
/// for the same architecture.
const ARCHITECTURE: &str = "x86_64";
const TARGET: &str = "x86_64-unknown-linux-gnu";
const MANIFEST: &str = "adopters/alioth";

/// Lists the cases.
pub(crate) fn cases() -> [Case; 2] {
    [
        Case::new("Alioth as it is", CASE_LIMIT, || report()?.judge_stock()),
        Case::new("Alioth with our routes", CASE_LIMIT, || report()?.judge_routed()),
    ]
}

/// Returns the report of Alioth's guest, booted with Alioth's routes and with Doorbell's.
fn report() -> Result<&'static Report> {
    static REPORT: Shared<Report> = Shared::new();
    REPORT.get(|| boot(workspace::this()?))
}

fn boot(workspace: &Workspace) -> Result<Report> {
    if (consts::ARCH, consts::OS) != (ARCHITECTURE, "linux") {
        return Err(Absent::new(format!("not on {}", consts::ARCH)).into());
    }
    let program = build(workspace)?;
    let tools = tools(workspace).or_absent("QEMU")?;
    let files = Files::of(workspace, &program).or_absent("the guest")?;
    let mut qemu = tools.command(QEMU);
    for data in ["qemu", "seabios"] {
        qemu.arg("-L").arg(tools.root().join("usr/share").join(data));
    }
    qemu.args(MACHINE).args(SURROUNDINGS).args(["-append", COMMAND_LINE]);
    qemu.arg("-kernel").arg(&files.kernel).arg("-initrd").arg(&files.initramfs);
    let (mut report, mut outcome) = watch(&mut qemu);
    if let Err(error) = &outcome
        && !report.has_our_routes()
    {
        // Our routes cannot be the cause of a hang, unlike QEMU's emulation of nested guests.
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
    let outcome = process::watch(qemu, LIMIT, |line| report.line(line));
    let outcome = outcome.with_context(|| format!("the last line is `{}`", report.last()));
    (report, outcome.map(drop))
}

/// Builds the monitor and the adapter, linked statically, because the machine has no libraries.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.root.join(MANIFEST);
    let target = workspace.target.join("adopters");
    let mut cargo = process::cargo(&folder);
    cargo.args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"]);
    cargo.arg(&target).env("RUSTFLAGS", "-C target-feature=+crt-static");
    process::must(&mut cargo)?;
    Ok(target.join(TARGET).join("release/alioth-adopter"))
}

fn tools(workspace: &Workspace) -> Result<Tools> {
    let folder = cache::folder(workspace).join("qemu-x86");
    if !cache::is_filled(&folder) {
        let apt = Apt::update(&cache::folder(workspace).join("apt"))?;
        cache::fill(&folder, || {
            apt.unpack_with_needs(&["qemu-system-x86"], Suite::Stable, &folder)
        })?;
    }
    Ok(Tools::at(folder))
}
