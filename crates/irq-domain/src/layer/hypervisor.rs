//! Layer that represents a hypervisor below the virtual controllers that it presents to its guest.

use super::Layer;
use msi_types::{Capabilities, Capability, Properties, Property, Tier};

/// The way in which a guest's messages reach the hardware. A guest kernel must put this layer
/// directly over each virtual controller, below all other layers. A kernel on bare metal does not
/// need it.
///
/// Both variants support PCI MSI and MSI-X, because the hypervisor traps their registers and
/// substitutes the physical message. Both also support devices that the hypervisor emulates
/// ([`Storage::Emulated`](msi_types::Storage::Emulated)).
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
