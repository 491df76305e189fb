//! The parts of the soak.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use crate::kvm;
use crate::outcome::Outcome;
use crate::{chaos, its, levels, machine, msix};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A part of the soak.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part {
    /// All controllers and both kinds of vCPUs, while a guest reprograms everything
    Chaos,
    /// An ITS against a reference
    Its,
    /// Level-triggered eventfds
    Levels,
    /// MSI-X tables
    Msix,
    /// Drivers on the simulated machine
    Machine,
    /// The routes of the host's KVM
    Kvm,
}

/// Code that is common to the parts that run a guest on the model.
const GUEST: &[&str] = &[
    "crates/msi-types",
    "crates/fallible",
    "crates/gic-arch",
    "crates/vgic",
    "proof/soak/src/guest.rs",
    "proof/soak/src/hardware.rs",
    "proof/soak/src/lifecycle.rs",
    "proof/support/src/guest",
];

impl Part {
    pub(crate) const ALL: [Self; 6] =
        [Self::Chaos, Self::Its, Self::Levels, Self::Msix, Self::Machine, Self::Kvm];

    /// Returns the part's name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Chaos => "chaos",
            Self::Its => "its",
            Self::Levels => "levels",
            Self::Msix => "msix",
            Self::Machine => "machine",
            Self::Kvm => "kvm",
        }
    }

    /// Returns the part's share of all messages, in thousandths. Nearly all messages are sent
    /// through a controller that a guest is reprogramming. A message of [`Self::Machine`] takes ten
    /// times as long as one of [`Self::Chaos`], because the whole machine is so often suspended,
    /// saved and restored.
    pub(crate) const fn share(self) -> u64 {
        match self {
            Self::Chaos => 950,
            Self::Its | Self::Machine => 10,
            Self::Kvm => 2,
            Self::Levels => 20,
            Self::Msix => 8,
        }
    }

    /// Returns the number of messages of a slice in a long run.
    pub(crate) const fn slice(self) -> u64 {
        match self {
            Self::Chaos => 400_000,
            Self::Its | Self::Levels => 50_000,
            Self::Kvm => 200_000,
            Self::Machine => 20_000,
            Self::Msix => 1_000_000,
        }
    }

    /// Returns the folders and files of the code under test, and of the part's own program.
    pub(crate) fn code(self) -> Vec<&'static str> {
        let own: &[_] = match self {
            Self::Chaos => &[
                "crates/irq-routing",
                "crates/vgic-kvm",
                "proof/soak/src/chaos",
                "proof/soak/src/chaos.rs",
            ],
            Self::Its => &["proof/soak/src/its.rs"],
            Self::Levels => &["crates/irq-routing", "proof/soak/src/levels.rs"],
            Self::Msix => &["crates/msi-types", "crates/irq-routing", "proof/soak/src/msix.rs"],
            Self::Machine => {
                &["crates", "sim/hardware", "sim/machine", "proof/soak/src/machine.rs"]
            }
            Self::Kvm => &["crates/msi-types", "crates/irq-routing", "proof/soak/src/kvm.rs"],
        };
        let has_guest = matches!(self, Self::Chaos | Self::Its | Self::Levels);
        [if has_guest { GUEST } else { &[] }, own].concat()
    }

    /// Runs a slice in this process. Panics if the slice fails.
    pub(crate) fn run(self, seed: u64, messages: u64) -> Outcome {
        match self {
            Self::Chaos => chaos::run(seed, messages),
            Self::Its => its::run(seed, messages),
            Self::Levels => levels::run(seed, messages),
            Self::Msix => msix::run(seed, messages),
            Self::Machine => machine::run(seed, messages),
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Self::Kvm => kvm::run(seed, messages),
            #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
            Self::Kvm => panic!("{}", self.absent().unwrap_or_default()),
        }
    }

    /// Returns the reason why the part cannot run on this host, or `None` if it can.
    pub(crate) fn absent(self) -> Option<String> {
        if self == Self::Kvm { doorbell_test_support::kvm::absent() } else { None }
    }
}
