//! Runs a QEMU machine with the hypervisor and its guests.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use doorbell_harness::qemu::{self, Version};

use crate::built;
use crate::files::{Files, MACHINE_BYTES_BELOW, Start};

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
    /// If `true`, the hypervisor counts exits and interrupts.
    pub(crate) stats: bool,
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
            stats: false,
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
        let moves = self.move_every.map_or(String::new(), |every| format!(" moves={every}"));
        let words = [
            (self.trusted, " trusted-guest"),
            (self.guest_smmu, " guest-smmu"),
            (self.direct, " direct"),
            (self.stats, " stats"),
        ];
        let words = format!(
            "vcpus={} {}{moves}{}{}",
            self.vcpus,
            self.controller.word(),
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

/// The `virt` machine with EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct Machine {
    /// GIC version of the machine
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=4))]
    gic_version: u8,
    /// Model of the machine's CPUs
    #[arg(long, value_enum, default_value = "neoverse-n1")]
    cpu: Model,
}

/// A CPU with list registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Model {
    /// Neoverse-N1
    NeoverseN1,
    /// All features that QEMU emulates
    Max,
}

impl Model {
    const fn name(self) -> &'static str {
        match self {
            Self::NeoverseN1 => "neoverse-n1",
            // The architected algorithm of pointer authentication is slow in QEMU.
            Self::Max => "max,pauth-impdef=on",
        }
    }
}

pub(crate) const GICV3: Machine = Machine { gic_version: 3, cpu: Model::NeoverseN1 };
pub(crate) const GICV4: Machine = Machine { gic_version: 4, cpu: Model::NeoverseN1 };
pub(crate) const MAX: Machine = Machine { gic_version: 4, cpu: Model::Max };

impl Machine {
    /// Returns the arguments for QEMU.
    pub(crate) fn arguments(self) -> [String; 4] {
        let virt = format!("virt,gic-version={},virtualization=on", self.gic_version);
        ["-M".into(), virt, "-cpu".into(), self.cpu.name().into()]
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GICv{} and {:?}", self.gic_version, self.cpu)
    }
}

/// A kind of MSI controller, named as on the hypervisor's command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Controller {
    /// An ITS
    #[default]
    Its,
    /// Message-based SPIs
    Mbi,
    /// `GICR_SETLPIR`, for which Linux needs a module
    DirectLpi,
    /// The same, but LPIs stay enabled, and memory is reserved for their tables
    PermanentLpi,
    /// The same as `direct-lpi`, but redistributors have no power while their vCPU is off
    PoweredLpi,
    /// A GICv2m frame
    V2m,
    /// None: MSIs have no effect
    None,
}

impl Controller {
    /// Returns the option for the hypervisor's command line.
    pub(crate) fn word(self) -> String {
        let value = self.to_possible_value().expect("no value is skipped");
        format!("controller={}", value.get_name())
    }

    /// Returns the beginning of the name that Linux's `/proc/interrupts` shows for the controller.
    pub(crate) const fn chip(self) -> Option<&'static str> {
        match self {
            Self::Its => Some("ITS-"),
            Self::DirectLpi | Self::PermanentLpi | Self::PoweredLpi => Some("DLPI-"),
            Self::Mbi | Self::V2m | Self::None => None,
        }
    }

    /// Returns `true` if the controller's messages signal LPIs.
    pub(crate) const fn has_lpis(self) -> bool {
        matches!(self, Self::Its) || self.is_direct()
    }

    /// Returns `true` if messages name an LPI.
    pub(crate) const fn is_direct(self) -> bool {
        matches!(self, Self::DirectLpi | Self::PermanentLpi | Self::PoweredLpi)
    }

    /// Returns text that Linux logs if it has the controller, and only then.
    pub(crate) const fn mark(self) -> Option<&'static str> {
        match self {
            Self::Its => Some("ITS [mem 0x08080000-"),
            Self::Mbi => Some("MBI range [80:207]"),
            Self::V2m => Some("GICv2m: range[mem 0x08020000-0x08020fff], SPI[80:207]"),
            Self::DirectLpi | Self::PermanentLpi | Self::PoweredLpi | Self::None => None,
        }
    }
}
