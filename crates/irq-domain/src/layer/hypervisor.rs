//! A hypervisor below the controllers that it presents to its guest.

use super::Layer;
use msi_types::{Capabilities, Capability, Properties, Property, Tier};

/// Treatment of messages that a guest composes. A guest's kernel must put this layer directly over
/// each virtual controller, below all other layers. It is not used on bare metal.
///
/// PCI MSI and MSI-X work in either case, because the hypervisor traps their registers and
/// substitutes the physical message. Devices that it emulates
/// ([`Storage::Emulated`](msi_types::Storage::Emulated)) also work in either case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hypervisor {
    /// The hypervisor only traps stores to known locations. A message that a device stores
    /// elsewhere is sent as the guest wrote it, and is meaningless to the hardware. This is the
    /// case for a virtual ITS without a virtual IOMMU.
    Traps,
    /// The controller is the interrupt remapping of a virtual IOMMU, and the hardware remaps the
    /// guest's messages accordingly, wherever they are stored. Messages in device-defined stores
    /// are accepted only from devices that the remapping isolates.
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
