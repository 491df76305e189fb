//! The machines with KVM on which Alioth runs, emulated by QEMU.

use std::env::consts;
use std::process::Command;

use anyhow::Result;
use doorbell_harness::apt::{self, Suite};
use doorbell_harness::dtb::Tools;
use doorbell_harness::qemu::{CONSOLE, PROGRAM, Version};
use doorbell_harness::suite::{Absent, OrAbsent};
use doorbell_harness::workspace::Workspace;

use crate::fetched;

/// A machine with KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// KVM's GICv3 and ITS.
    Arm64,
    /// KVM's local APICs.
    X86,
}

impl Host {
    /// Returns Debian's name of the architecture.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86 => "amd64",
        }
    }

    /// Returns Rust's name of the architecture.
    pub(crate) fn architecture(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64",
            Self::X86 => "x86_64",
        }
    }

    /// Returns the terminal of the machine, and of Alioth's guest.
    pub(crate) fn console(self) -> &'static str {
        match self {
            Self::Arm64 => "ttyAMA0",
            Self::X86 => "ttyS0",
        }
    }

    /// Returns the kernel's modules for KVM and for Alioth, in the order of their dependencies.
    pub(crate) fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Arm64 => &["tun.ko"],
            Self::X86 => &["irqbypass.ko", "kvm.ko", "kvm-amd.ko", "tun.ko"],
        }
    }

    /// Returns a command for the machine. The caller must add a kernel.
    pub(crate) fn command(self, workspace: &Workspace) -> Result<Command> {
        let mut qemu = match self {
            Self::Arm64 => fetched::qemu(Version::Backports)?.command(PROGRAM),
            Self::X86 => x86_qemu(workspace)?,
        };
        // A single emulated CPU never has to wait for another CPU that a busy host does not
        // schedule.
        qemu.args(["-smp", "1"]).args(CONSOLE).args(["-m", "1536M"]).args(match self {
            // A CPU with the Virtualization Host Extensions, so that the kernel stays at EL2.
            Self::Arm64 => ["-M", "virt,gic-version=3,virtualization=on", "-cpu", "neoverse-n1"],
            // QEMU emulates only AMD's virtualization.
            Self::X86 => ["-M", "q35", "-cpu", "EPYC,+svm,+npt"],
        });
        qemu.arg("-append").arg(format!("console={} quiet panic=-1", self.console()));
        Ok(qemu)
    }
}

/// Returns a command for the QEMU that emulates x86. Its programs come from packages for x86.
fn x86_qemu(workspace: &Workspace) -> Result<Command> {
    if (consts::ARCH, consts::OS) != ("x86_64", "linux") {
        return Err(Absent::new(format!("not on {}", consts::ARCH)).into());
    }
    let packages = ["qemu-system-x86"];
    let folder = apt::cached_with_needs(workspace, Suite::Stable, "qemu-x86", &packages);
    let tools = folder.map(Tools::at).or_absent("QEMU")?;
    let mut qemu = tools.command("qemu-system-x86_64");
    for data in ["qemu", "seabios"] {
        qemu.arg("-L").arg(tools.root().join("usr/share").join(data));
    }
    Ok(qemu)
}
