//! The dimensions of the matrix, and the combinations that exist.

use std::fmt;

/// Defines the values in one dimension of the matrix, and their names in the output.
macro_rules! dimension {
    (
        $(#[$doc:meta])* $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident => $text:literal,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All values, in matrix order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the name used in the matrix.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

dimension! {
    /// A kind of endpoint.
    Endpoint {
        /// A PCI function with a single message in configuration space, a 64-bit address and no
        /// mask.
        PciMsi => "pci-msi",
        /// A PCI function with multi-message MSI and mask bits, which derives eight messages from
        /// one.
        PciMultiMsi => "pci-multi-msi",
        /// A PCI function whose MSI-X table has eight messages.
        PciMsix => "pci-msix",
        /// A wireless adapter with a single message in configuration space for four vectors. Its
        /// driver copies the vectors' messages into the adapter's rings.
        Ath11k => "ath11k",
        /// A device that stores its messages in ring memory. Its 40 rings share 32 vectors, or a
        /// single vector if the driver cannot allocate 32.
        ImsRing => "ims-ring",
        /// A message store inside the same PCI function as [`PciMsix`](Self::PciMsix), which the
        /// driver changes through a command queue.
        ImsQueue => "ims-queue",
        /// A device outside PCI that has registers for its messages. In a guest, this is a device
        /// that the hypervisor passes through.
        Platform => "platform",
        /// A device like [`Platform`](Self::Platform), but emulated by the hypervisor if the kernel
        /// is a guest.
        Emulated => "emulated",
    }
}

dimension! {
    /// An endpoint's root controller.
    Parent {
        /// An Interrupt Translation Service.
        Its => "its",
        /// The doorbells of the redistributors, in a machine without an ITS.
        DirectLpi => "direct-lpi",
        /// The message-based SPIs of the distributor.
        Mbi => "mbi",
        /// A GICv2m frame.
        V2m => "v2m",
        /// Vectors in x86's local APICs.
        X86Vector => "x86-vector",
        /// Hyper-V's virtual PCI bus on arm64: the guest GIC's SPIs, with messages from the host.
        HypervSpi => "hyperv-spi",
        /// Hyper-V's virtual PCI bus on x86: vectors in the guest's local APICs.
        HypervApic => "hyperv-x86",
    }
}

dimension! {
    /// The layer between an endpoint and its root controller.
    Layer {
        /// No IOMMU.
        None => "none",
        /// An IOMMU that translates device writes. Doorbells are mapped as 4 KiB pages; on x86,
        /// they lie in the region that the hardware reserves for messages.
        DoorbellMapping => "doorbell-mapping",
        /// An IOMMU that remaps messages. Only x86 has such IOMMUs; on Arm, the ITS remaps
        /// messages.
        Remapping => "remapping",
    }
}

dimension! {
    /// The environment that the kernel runs in.
    World {
        /// Directly on hardware.
        BareMetal => "bare-metal",
        /// In a guest whose hypervisor traps stores to the registers that PCI defines.
        Guest => "guest",
        /// In a guest whose hypervisor remaps messages in hardware according to the guest's virtual
        /// IOMMU, if that IOMMU remaps messages (i.e. on x86, with [`Layer::Remapping`]).
        GuestRemapped => "guest-remapped",
    }
}

impl Parent {
    /// Returns `true` for a virtual bus, whose host composes the messages.
    pub(crate) const fn is_virtual_bus(self) -> bool {
        matches!(self, Self::HypervSpi | Self::HypervApic)
    }
}

/// One combination of an endpoint, a parent, a layer and an environment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cell {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The root controller.
    pub parent: Parent,
    /// The layer between the root controller and the endpoint.
    pub layer: Layer,
    /// The environment of the kernel.
    pub world: World,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}, layer {}, {}", self.endpoint, self.parent, self.layer, self.world)
    }
}

/// The outcome of a trial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Every message arrived, and all resources have been released.
    Works,
    /// The drivers refused for this reason, and all resources have been released.
    Refused(String),
    /// A defect: a message was lost, or a resource was not released.
    Broken(String),
}

/// Returns all existing combinations. Remapping exists only on x86, and a virtual bus only in a
/// guest.
pub fn cells() -> impl Iterator<Item = Cell> {
    stacks().flat_map(|(parent, layer, world)| {
        Endpoint::ALL.iter().map(move |endpoint| Cell { endpoint: *endpoint, parent, layer, world })
    })
}

/// Returns the existing combinations of a parent, a layer and a world.
pub(crate) fn stacks() -> impl Iterator<Item = (Parent, Layer, World)> {
    let exists = |parent, layer, world| match parent {
        Parent::Its | Parent::DirectLpi | Parent::Mbi | Parent::V2m => layer != Layer::Remapping,
        Parent::X86Vector => true,
        // The guest can't see the host's IOMMU.
        Parent::HypervSpi | Parent::HypervApic => layer == Layer::None && world == World::Guest,
    };
    World::ALL.iter().flat_map(move |world| {
        Parent::ALL.iter().flat_map(move |parent| {
            let layers = Layer::ALL.iter().filter(move |layer| exists(*parent, **layer, *world));
            layers.map(move |layer| (*parent, *layer, *world))
        })
    })
}
