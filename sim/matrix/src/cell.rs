//! The matrix: its four dimensions, and the combinations of their values that exist.

use std::fmt;

/// Defines the values of one dimension of the matrix, with their names in its output.
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
            /// All values, in the matrix's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the name in the matrix.
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
        /// A PCI function with a single message in configuration space, 64 address bits and no
        /// mask.
        PciMsi => "pci-msi",
        /// A PCI function with mask bits that derives eight messages from one.
        PciMultiMsi => "pci-multi-msi",
        /// A PCI function with an MSI-X table of eight messages.
        PciMsix => "pci-msix",
        /// A device that stores its messages in the memory of its 40 rings, which share 32 vectors
        /// or a single one.
        ImsRing => "ims-ring",
        /// Messages that the PCI function with the table stores internally, behind a command queue.
        ImsQueue => "ims-queue",
        /// A device outside PCI with registers for its messages. In a guest, it is passed through.
        Platform => "platform",
        /// A device of the same kind, of a model that a hypervisor emulates for its guests.
        Emulated => "emulated",
    }
}

dimension! {
    /// The root controller of an endpoint.
    Parent {
        /// An Interrupt Translation Service.
        Its => "its",
        /// The redistributors' doorbells, without an ITS.
        DirectLpi => "direct-lpi",
        /// The distributor's message-based SPIs.
        Mbi => "mbi",
        /// A GICv2m frame.
        V2m => "v2m",
        /// The vectors of x86's local APICs.
        X86Vector => "x86-vector",
        /// Hyper-V's virtual PCI bus on arm64: SPIs of the guest's GIC, with the host's messages.
        HypervSpi => "hyperv-spi",
        /// Hyper-V's virtual PCI bus on x86: vectors of the guest's local APICs.
        HypervApic => "hyperv-x86",
    }
}

dimension! {
    /// The layer between an endpoint and its root controller.
    Layer {
        /// No IOMMU.
        None => "none",
        /// An IOMMU that translates devices' writes. Doorbells are mapped in pages of 4 KiB; on x86
        /// they are in the region that the hardware reserves for messages.
        DoorbellMapping => "doorbell-mapping",
        /// An IOMMU that remaps messages. Only x86 has one; on Arm, the ITS has this role.
        Remapping => "remapping",
    }
}

dimension! {
    /// The environment of the kernel.
    World {
        /// Directly on the hardware.
        BareMetal => "bare-metal",
        /// In a guest, whose hypervisor traps stores to the registers that PCI defines.
        Guest => "guest",
        /// In a guest whose hypervisor remaps messages in hardware according to the guest's virtual
        /// IOMMU, if that IOMMU remaps messages at all: on x86, with [`Layer::Remapping`].
        GuestRemapped => "guest-remapped",
    }
}

/// One combination of the matrix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cell {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The root controller.
    pub parent: Parent,
    /// The layer above it.
    pub layer: Layer,
    /// The kernel's environment.
    pub world: World,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}, layer {}, {}", self.endpoint, self.parent, self.layer, self.world)
    }
}

/// The result of a trial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Every message arrived, and all resources were released.
    Works,
    /// The drivers refused for this reason, and the attempt left no trace.
    Refused(String),
    /// A defect: a message was lost, or a resource was not released.
    Broken(String),
}

/// Returns the existing combinations: only x86 has remapping, and only guests have a virtual bus.
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
        // The guest does not see the host's IOMMU.
        Parent::HypervSpi | Parent::HypervApic => layer == Layer::None && world == World::Guest,
    };
    World::ALL.iter().flat_map(move |world| {
        Parent::ALL.iter().flat_map(move |parent| {
            let layers = Layer::ALL.iter().filter(move |layer| exists(*parent, **layer, *world));
            layers.map(move |layer| (*parent, *layer, *world))
        })
    })
}
