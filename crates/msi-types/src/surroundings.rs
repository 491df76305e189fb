//! Bare metal or a hypervisor around the kernel.

use crate::{Capabilities, Capability, Properties, Property, Tier};

/// Surroundings of a kernel. Bring-up code must be told; if it isn't, it behaves as in a guest,
/// where only messages that the hypervisor sees being stored are accepted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Surroundings {
    /// The kernel programs the hardware: a device sends a message as the kernel wrote it, wherever
    /// it is stored.
    BareMetal,
    /// The kernel is a guest.
    Guest(Hypervisor),
}

impl Default for Surroundings {
    fn default() -> Self {
        Self::Guest(Hypervisor::Traps)
    }
}

impl Surroundings {
    /// Returns the surroundings for a machine that bears an explicit sign of a hypervisor. The sign
    /// only restricts: it overrules a kernel that states bare metal.
    #[must_use]
    pub const fn beside_hypervisor(self) -> Self {
        match self {
            Self::BareMetal => Self::Guest(Hypervisor::Traps),
            Self::Guest(_) => self,
        }
    }

    /// Returns the hypervisor around a guest.
    pub const fn hypervisor(self) -> Option<Hypervisor> {
        match self {
            Self::BareMetal => None,
            Self::Guest(hypervisor) => Some(hypervisor),
        }
    }
}

/// The way in which a guest's messages reach the hardware. A virtual bus that states itself what
/// its host does, such as Hyper-V's, has no use for it.
///
/// Both variants support PCI MSI and MSI-X, because the hypervisor traps their registers and
/// substitutes the physical message, unless the driver copies messages. Both also support devices
/// that the hypervisor emulates ([`Storage::Emulated`](crate::Storage::Emulated)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Hypervisor {
    /// The hypervisor only traps stores to known locations. A message stored anywhere else is sent
    /// as the guest wrote it, so the hardware cannot interpret it. A virtual ITS without a virtual
    /// IOMMU behaves this way.
    Traps,
    /// The controller is the interrupt remapping unit of a virtual IOMMU. The hardware remaps the
    /// guest's messages as this unit specifies, wherever they are stored. Messages in
    /// device-defined stores are only accepted from devices that the remapping isolates.
    Remaps,
}

impl Hypervisor {
    /// Returns the level of the hierarchy directly above a virtual controller.
    pub const fn tier(self) -> Tier {
        let real = Capabilities::NONE.with(Capability::MessageRemapping);
        let tier = Tier::new("hypervisor");
        match self {
            Self::Traps => tier.with_blocks(real),
            Self::Remaps => {
                tier.with_provides(real).with_requires(Properties::NONE.with(Property::Isolation))
            }
        }
    }
}
