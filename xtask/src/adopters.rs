//! Alioth, a monitor of another project, on Linux's KVM: as it is, and with our routes. Its guest
//! has two network devices, whose queues have more interrupts than Alioth has routes for.

mod files;
mod report;

use std::env::consts;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use self::files::Files;
use self::report::Report;
use crate::apt::{Apt, Suite};
use crate::dtb::Tools;
use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{cache, process};

/// Two boots take a minute, on a busy machine five; what takes longer hangs.
const LIMIT: Duration = Duration::from_mins(10);
const QEMU: &str = "qemu-system-x86_64";
/// A CPU that runs guests. QEMU emulates AMD's virtualization, and no other. With one CPU, no
/// emulated CPU waits for another one that a busy machine does not run.
const MACHINE: &[&str] = &["-M", "q35", "-cpu", "EPYC,+svm,+npt", "-smp", "1", "-m", "1536M"];
const SURROUNDINGS: &[&str] =
    &["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"];
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1";
/// The monitor's machine. It runs in QEMU, whose programs come from packages for this one.
const ARCHITECTURE: &str = "x86_64";
const TARGET: &str = "x86_64-unknown-linux-gnu";
const MANIFEST: &str = "adopters/alioth";

/// Alioth's guest, booted on Alioth's routes and on ours. Each expectation is one case.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    if (consts::ARCH, consts::OS) != (ARCHITECTURE, "linux") {
        tally.skip(format!("Alioth's guest: not on {}", consts::ARCH));
        return Ok(());
    }
    let program = build(workspace)?;
    let fetched = tools(workspace)
        .and_then(|tools| Ok((Files::of(workspace, &program).context("the guest")?, tools)));
    let (files, tools) = match fetched {
        Ok(both) => both,
        Err(absent) => {
            tally.skip(format!("Alioth's guest: {absent:#}"));
            return Ok(());
        }
    };
    let mut qemu = tools.command(QEMU);
    for data in ["qemu", "seabios"] {
        qemu.arg("-L").arg(tools.root().join("usr/share").join(data));
    }
    qemu.args(MACHINE).args(SURROUNDINGS).args(["-append", COMMAND_LINE]);
    qemu.arg("-kernel").arg(&files.kernel).arg("-initrd").arg(&files.initramfs);
    let mut report = Report::default();
    process::watch(&mut qemu, LIMIT, |line| report.line(line))
        .with_context(|| format!("the last line is `{}`", report.last()))?;
    println!("{report}");
    report.judge(tally);
    Ok(())
}

/// The monitor and our adapter, linked statically: the machine has nothing but it.
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
