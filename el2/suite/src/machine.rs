//! The QEMU machine that the hypervisor runs on.

use std::fmt;

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
