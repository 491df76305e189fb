//! A hypervisor below the controllers that it presents to its guest.

use super::Layer;
use msi_types::{Capabilities, Capability, Properties, Property, Tier};

/// Treatment of the messages that a hypervisor's guest composes. A guest's kernel puts this
/// layer over each controller that is virtual, below all other layers; bare metal has none.
///
/// PCI's MSI and MSI-X work in either case: a hypervisor traps their registers and puts in what is
/// real. So do devices that it emulates ([`Storage::Emulated`](msi_types::Storage::Emulated)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hypervisor {
    /// Nothing: what a device stores elsewhere is sent as the guest wrote it, and means nothing to
    /// the hardware. So it is below a virtual ITS alone.
    Traps,
    /// The controller is its virtual IOMMU's interrupt remapping, and the hardware remaps the
    /// guest's messages as that says, wherever they are stored. They are taken from devices that
    /// the remapping isolates.
    Remaps,
}

impl Layer for Hypervisor {
    fn tier(&self) -> Tier {
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
