//! Runs a QEMU machine with the hypervisor and its guests.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use doorbell_harness::qemu::{self, Version};

use crate::built;
use crate::controller::Controller;
use crate::files::{Files, MACHINE_BYTES_BELOW, Start};
use crate::machine::{GICV3, Machine};

/// A run takes 5 to 15 seconds, or longer on a busy machine. A run that exceeds the limit is
/// assumed to hang.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);
/// An SMMU between PCI and memory.
pub(crate) const CONFINED: &[&str] = &["-M", "iommu=smmuv3"];
pub(crate) const SURROUNDINGS: &[&str] =
    &["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"];
/// Virtual time is counted in instructions, so every run has the same results.
pub(crate) const COUNTED: &[&str] =
    &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"];
/// The QEMU version that can count the instructions of several CPUs.
pub(crate) const COUNTING: Version = Version::Backports;
/// Minimum number of moves in a run that moves its guests.
pub(crate) const MOVES: u64 = 10;
/// A Linux guest's memory in MiB.
pub(crate) const MEMORY: u32 = 512;

/// A machine on which the hypervisor runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Board<'a> {
    pub(crate) machine: Machine,
    /// Version of QEMU.
    pub(crate) version: Version,
    /// Number of vCPUs of each guest.
    pub(crate) vcpus: u8,
    /// Number of CPUs of the machine.
    pub(crate) cpus: u8,
    /// Memory of each guest in MiB.
    pub(crate) memory: u32,
    /// The MSI controller of each guest.
    pub(crate) controller: Controller,
    /// Devices, distributed round-robin among the guests.
    pub(crate) devices: &'a [&'a str],
    /// If `true`, the devices' memory accesses are not confined. Otherwise an SMMU confines the
    /// devices.
    pub(crate) trusted: bool,
    pub(crate) start: Start,
    /// If `true`, the only guest owns an SMMU in front of its devices. Implies `trusted`.
    pub(crate) guest_smmu: bool,
    /// If `true`, devices' messages are injected directly, if that is possible.
    pub(crate) direct: bool,
    /// Interval between moves of the guests, in milliseconds.
    pub(crate) move_every: Option<u32>,
    /// If `true`, the hypervisor prints each exit when it happens.
    pub(crate) exits: bool,
    /// If `true`, the hypervisor counts exits and interrupts.
    pub(crate) stats: bool,
    /// Number of seconds after which the machine ends, with its reports, even if a guest hangs.
    pub(crate) limit: Option<u32>,
}

impl Board<'static> {
    /// Returns a machine with one CPU and this QEMU version, for guests that have one vCPU, an ITS
    /// and `memory` MiB.
    pub(crate) const fn plain(version: Version, memory: u32) -> Self {
        Self {
            machine: GICV3,
            version,
            vcpus: 1,
            cpus: 1,
            memory,
            controller: Controller::Its,
            devices: &[],
            trusted: false,
            guest_smmu: false,
            direct: false,
            start: Start::Kernel,
            move_every: None,
            exits: false,
            stats: false,
            limit: None,
        }
    }
}

impl Board<'_> {
    /// Returns the command that starts QEMU with the hypervisor and the guests' files.
    pub(crate) fn command(&self, guests: &[Files<'_>]) -> Result<Command> {
        let mut qemu = built::tools(self.version)?.command(qemu::PROGRAM);
        qemu.args(self.machine.arguments()).args(SURROUNDINGS);
        qemu.args(["-smp", &self.cpus.to_string()]);
        let memory = (MACHINE_BYTES_BELOW >> 20) + guests.len() as u64 * u64::from(self.memory);
        qemu.args(["-m", &format!("{memory}M")]);
        qemu.arg("-kernel").arg(&built::hypervisor()?.flat);
        for (others, files) in guests.iter().enumerate() {
            qemu.args(files.loaders(self.memory, others, self.start)?);
        }
        let confined = !self.devices.is_empty() && !self.trusted;
        qemu.args(if confined || self.guest_smmu { CONFINED } else { &[] });
        let option = |name: &str, value: Option<u32>| {
            value.map_or(String::new(), |value| format!(" {name}={value}"))
        };
        let words = [
            (self.trusted, " trusted-guest"),
            (self.guest_smmu, " guest-smmu"),
            (self.direct, " direct"),
            (self.exits, " exits"),
            (self.stats, " stats"),
        ];
        let words = format!(
            "vcpus={} {}{}{}{}{}",
            self.vcpus,
            self.controller.word(),
            option("moves", self.move_every),
            option("limit", self.limit),
            words.iter().filter(|it| it.0).map(|it| it.1).collect::<String>(),
            self.start.words()
        );
        qemu.args(["-append", &words]);
        qemu.args(self.devices.iter().flat_map(|device| ["-device", device]));
        Ok(qemu)
    }
}

/// Returns the command that starts QEMU's `virt` with its own GIC, without the hypervisor.
pub(crate) fn without_hypervisor(version: Version, cpus: u8, memory: u32) -> Result<Command> {
    let mut qemu = built::tools(version)?.command(qemu::PROGRAM);
    qemu.args(["-M", "virt,gic-version=3", "-cpu", "neoverse-n1"]).args(SURROUNDINGS);
    qemu.args(["-m", &format!("{memory}M"), "-smp", &cpus.to_string()]);
    Ok(qemu)
}
