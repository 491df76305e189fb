//! The dimensions of the matrix.

use doorbell_hardware::bridge_msi::BridgeMsiKind;
use doorbell_machine::Migration;
use msi_types::{Hypervisor, Surroundings};

/// A kind of endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Endpoint {
    /// A PCI function with a single message in configuration space, a 64-bit address and no mask.
    PciMsi,
    /// A PCI function with multi-message MSI and mask bits, which derives eight messages from one.
    PciMultiMsi,
    /// A PCI function whose MSI-X table has eight messages.
    PciMsix,
    /// A wireless adapter with a single message in configuration space for four vectors. Its driver
    /// copies the vectors' messages into the adapter's rings.
    Ath11k,
    /// A device outside PCI that has registers for its messages. In a guest, this is a device that
    /// the hypervisor passes through.
    Platform,
    /// A device like [`Platform`](Self::Platform), but emulated by the hypervisor if the kernel is
    /// a guest.
    Emulated,
}

impl Endpoint {
    pub(super) const ALL: [Self; 6] = [
        Self::PciMsi,
        Self::PciMultiMsi,
        Self::PciMsix,
        Self::Ath11k,
        Self::Platform,
        Self::Emulated,
    ];
}

/// An endpoint's root controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parent {
    /// An Interrupt Translation Service.
    Its,
    /// The doorbells of the redistributors, in a machine without an ITS.
    DirectLpi,
    /// The message-based SPIs of the distributor.
    Mbi,
    /// A GICv2m frame.
    V2m,
    /// A controller inside the host bridge, which raises an SPI.
    Bridge(BridgeMsiKind),
    /// Vectors in x86's local APICs.
    X86Vector,
    /// Hyper-V's virtual PCI bus on arm64: the guest GIC's SPIs, with messages from the host.
    HypervSpi,
}

/// The layer between an endpoint and its root controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layer {
    /// No IOMMU.
    None,
    /// An IOMMU that translates device writes. Doorbells are mapped as 4 KiB pages; on x86, they
    /// lie in the region that the hardware reserves for messages.
    DoorbellMapping,
    /// An IOMMU that remaps messages. Only x86 has such IOMMUs; on Arm, the ITS remaps messages.
    Remapping,
}

/// The environment that the kernel runs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum World {
    /// Directly on hardware.
    BareMetal,
    /// In a guest whose hypervisor traps stores to the registers that PCI defines.
    Guest,
    /// In a guest whose hypervisor remaps messages in hardware according to the guest's virtual
    /// IOMMU, if that IOMMU remaps messages (i.e. on x86, with [`Layer::Remapping`]).
    GuestRemapped,
}

/// A board's parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct BoardConfig {
    pub(super) parent: Parent,
    pub(super) layer: Layer,
    /// The environment, as reported by the platform.
    pub(super) world: World,
    /// The actual environment.
    pub(super) reality: World,
    /// Migration of a GIC during trials. (The APICs of x86 do not migrate.)
    pub(super) migration: Migration,
}

impl BoardConfig {
    /// Returns a platform that reports its environment correctly.
    pub(super) fn new(parent: Parent, layer: Layer, world: World, migration: Migration) -> Self {
        Self { parent, layer, world, reality: world, migration }
    }

    /// Returns the surroundings that the kernel states. On Arm, hypervisors don't remap messages. A
    /// virtual bus states itself what its host does.
    pub(super) fn surroundings(&self) -> Surroundings {
        match (self.world, self.layer) {
            _ if self.parent == Parent::HypervSpi => Surroundings::BareMetal,
            (World::BareMetal, _) => Surroundings::BareMetal,
            (World::GuestRemapped, Layer::Remapping) => Surroundings::Guest(Hypervisor::Remaps),
            (World::Guest | World::GuestRemapped, _) => Surroundings::Guest(Hypervisor::Traps),
        }
    }

    /// Returns `true` if messages that devices store themselves reach the hardware.
    pub(super) fn stored_messages_are_real(&self) -> bool {
        match self.reality {
            _ if self.parent == Parent::HypervSpi => true,
            World::BareMetal => true,
            World::Guest => false,
            World::GuestRemapped => self.layer == Layer::Remapping,
        }
    }
}
