//! A machine of QEMU's with the hypervisor and its guests.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use doorbell_harness::dtb::Tools;
use doorbell_harness::image::Image;
use doorbell_harness::qemu::{self, Version};

use crate::built;
use crate::controller::Controller;
use crate::files::{Files, MACHINE_BYTES_BELOW};
use crate::machine::Machine;

/// A run takes 5 to 15 seconds, on a busy machine more; what takes longer hangs.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);
/// An SMMU between PCI and memory.
pub(crate) const CONFINED: &[&str] = &["-M", "iommu=smmuv3"];
pub(crate) const SURROUNDINGS: &[&str] =
    &["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"];
/// Time in instructions: every run has the same figures.
pub(crate) const COUNTED: &[&str] =
    &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"];
/// The QEMU that counts the instructions of several CPUs.
pub(crate) const COUNTING: Version = Version::Backports;
/// Fewest moves of a guest that is moved.
pub(crate) const MOVES: u64 = 10;
/// MiB of a Linux guest.
pub(crate) const MEMORY: u32 = 512;

/// A machine for the hypervisor.
#[derive(Clone, Copy)]
pub(crate) struct Board<'a> {
    pub(crate) machine: Machine,
    pub(crate) tools: &'a Tools,
    pub(crate) image: &'a Image,
    /// Of each guest.
    pub(crate) vcpus: u8,
    /// Of the machine.
    pub(crate) cpus: u8,
    /// MiB of each guest.
    pub(crate) memory: u32,
    /// Of each guest.
    pub(crate) controller: Controller,
    /// Devices for the guests in turn.
    pub(crate) devices: &'a [String],
    /// Nothing confines the devices, else an SMMU.
    pub(crate) trusted: bool,
    /// Milliseconds from one move of the guests to the next.
    pub(crate) move_every: Option<u32>,
    pub(crate) record: Record,
}

/// The hypervisor's records of exits and injections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) trace: bool,
    pub(crate) stats: bool,
}

impl Board<'static> {
    /// Returns a machine with one CPU for guests of one vCPU with an ITS and `memory` MiB, on this
    /// QEMU.
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
            move_every: None,
            record: Record::default(),
        })
    }
}

impl Board<'_> {
    /// QEMU with the hypervisor and the guests' files.
    pub(crate) fn command(&self, guests: &[Files<'_>]) -> Result<Command> {
        let mut qemu = self.tools.command(qemu::PROGRAM);
        qemu.args(self.machine.arguments()).args(SURROUNDINGS);
        qemu.args(["-smp", &self.cpus.to_string()]);
        let memory = (MACHINE_BYTES_BELOW >> 20) + guests.len() as u64 * u64::from(self.memory);
        qemu.args(["-m", &format!("{memory}M")]);
        qemu.arg("-kernel").arg(&self.image.flat);
        for (others, files) in guests.iter().enumerate() {
            qemu.args(files.loaders(self.memory, others)?);
        }
        let confined = !self.devices.is_empty() && !self.trusted;
        qemu.args(if confined { CONFINED } else { &[] });
        let trusted = if self.trusted { " trusted-guest" } else { "" };
        let moves = self.move_every.map_or(String::new(), |time| format!(" moves={time}"));
        let trace = if self.record.trace { " trace" } else { "" };
        let stats = if self.record.stats { " stats" } else { "" };
        let words = format!(
            "vcpus={} {}{moves}{trusted}{trace}{stats}",
            self.vcpus,
            self.controller.word()
        );
        qemu.args(["-append", &words]);
        for device in self.devices {
            qemu.args(["-device", device]);
        }
        Ok(qemu)
    }
}
