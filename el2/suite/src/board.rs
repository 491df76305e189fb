//! Runs a QEMU machine with the hypervisor and its guests.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use doorbell_harness::dtb::Tools;
use doorbell_harness::image::Image;
use doorbell_harness::qemu::{self, Version};

use crate::built;
use crate::controller::Controller;
use crate::files::{Files, MACHINE_BYTES_BELOW, Start};
use crate::machine::Machine;

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
#[derive(Clone, Copy)]
pub(crate) struct Board<'a> {
    pub(crate) machine: Machine,
    pub(crate) tools: &'a Tools,
    pub(crate) image: &'a Image,
    /// Number of vCPUs of each guest.
    pub(crate) vcpus: u8,
    /// Number of CPUs of the machine.
    pub(crate) cpus: u8,
    /// Memory of each guest in MiB.
    pub(crate) memory: u32,
    /// The MSI controller of each guest.
    pub(crate) controller: Controller,
    /// Devices, distributed round-robin among the guests.
    pub(crate) devices: &'a [String],
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
    pub(crate) record: Record,
    /// Number of seconds after which the machine ends, with its reports, even if a guest hangs.
    pub(crate) limit: Option<u32>,
}

/// The hypervisor's records of exits and interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Prints each exit when it happens.
    pub(crate) exits: bool,
    /// Counts exits and interrupts.
    pub(crate) stats: bool,
}

impl Board<'static> {
    /// Returns a machine with one CPU and this QEMU version, for guests that have one vCPU, an ITS
    /// and `memory` MiB.
    pub(crate) fn plain(version: Version, memory: u32) -> Result<Self> {
        Ok(Self {
            machine: Machine::default(),
            tools: built::tools(version)?,
            image: built::hypervisor()?,
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
            record: Record::default(),
            limit: None,
        })
    }
}

impl Board<'_> {
    /// Returns the command that starts QEMU with the hypervisor and the guests' files.
    pub(crate) fn command(&self, guests: &[Files<'_>]) -> Result<Command> {
        let mut qemu = self.tools.command(qemu::PROGRAM);
        qemu.args(self.machine.arguments()).args(SURROUNDINGS);
        qemu.args(["-smp", &self.cpus.to_string()]);
        let memory = (MACHINE_BYTES_BELOW >> 20) + guests.len() as u64 * u64::from(self.memory);
        qemu.args(["-m", &format!("{memory}M")]);
        qemu.arg("-kernel").arg(&self.image.flat);
        for (others, files) in guests.iter().enumerate() {
            qemu.args(files.loaders(self.memory, others, self.start)?);
        }
        let confined = !self.devices.is_empty() && !self.trusted;
        qemu.args(if confined || self.guest_smmu { CONFINED } else { &[] });
        let words = [
            (self.trusted, " trusted-guest"),
            (self.guest_smmu, " guest-smmu"),
            (self.direct, " direct"),
        ];
        let options: String = words.iter().filter(|it| it.0).map(|it| it.1).collect();
        let moves = self.move_every.map_or(String::new(), |time| format!(" moves={time}"));
        let limit = self.limit.map_or(String::new(), |seconds| format!(" limit={seconds}"));
        let Record { exits, stats } = self.record;
        let records = [(exits, " exits"), (stats, " stats")];
        let records: String = records.iter().filter(|it| it.0).map(|it| it.1).collect();
        let words = format!(
            "vcpus={} {}{moves}{limit}{options}{records}{}",
            self.vcpus,
            self.controller.word(),
            self.start.words()
        );
        qemu.args(["-append", &words]);
        for device in self.devices {
            qemu.args(["-device", device]);
        }
        Ok(qemu)
    }
}
