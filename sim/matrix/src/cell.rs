//! The matrix: its four dimensions, and the combinations of their values that exist.

use std::fmt;

/// Defines the values of one of the matrix's dimensions, with the names that they have in its
/// output.
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
            /// All of them, in the matrix's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in the matrix.
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
        /// A PCI function with one message in configuration space, 64 address bits, no mask.
        PciMsi => "pci-msi",
        /// A PCI function that makes eight messages of one, with mask bits.
        PciMultiMsi => "pci-multi-msi",
        /// A PCI function with a table of eight messages.
        PciMsix => "pci-msix",
        /// A device that keeps its messages in the memory of its 40 rings, which share 32 vectors
        /// or one.
        ImsRing => "ims-ring",
        /// Messages that the PCI function with the table keeps to itself, behind a queue of
        /// commands.
        ImsQueue => "ims-queue",
        /// A device outside of PCI, with registers for its messages. A guest has it passed through.
        Platform => "platform",
        /// The same, of a kind that a hypervisor emulates for its guests.
        Emulated => "emulated",
    }
}

dimension! {
    /// The root controller of an endpoint.
    Parent {
        /// An Interrupt Translation Service.
        Its => "its",
        /// The redistributors' own doorbells, without an ITS.
        DirectLpi => "direct-lpi",
        /// The distributor's message-based SPIs.
        Mbi => "mbi",
        /// A GICv2m frame.
        V2m => "v2m",
        /// The vectors of x86's local APICs.
        X86Vector => "x86-vector",
        /// Hyper-V's virtual PCI bus on arm64: SPIs of the guest's GIC, and the host's messages.
        HypervSpi => "hyperv-spi",
        /// The same bus on x86: vectors of the guest's local APICs.
        HypervApic => "hyperv-x86",
    }
}

dimension! {
    /// The layer between an endpoint and its root controller.
    Layer {
        /// No IOMMU.
        None => "none",
        /// An IOMMU that translates what devices write. Doorbells are mapped in pages of 4 KiB; on
        /// x86 they lie in the region that the hardware reserves for messages.
        DoorbellMapping => "doorbell-mapping",
        /// An IOMMU that translates messages. Only x86 has one: on Arm that is the ITS.
        Remapping => "remapping",
    }
}

dimension! {
    /// On what the kernel runs.
    World {
        /// On the machine itself.
        BareMetal => "bare-metal",
        /// In a guest, whose hypervisor traps the stores that PCI defines.
        Guest => "guest",
        /// In a guest whose hypervisor's hardware remaps messages as the guest's virtual IOMMU
        /// says, if that remaps messages at all: on x86, with [`Layer::Remapping`].
        GuestRemapped => "guest-remapped",
    }
}

/// One combination.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cell {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The root controller.
    pub parent: Parent,
    /// The layer above it.
    pub layer: Layer,
    /// The kernel's surroundings.
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
    /// Every message arrived, and everything was given back.
    Works,
    /// The drivers refused, for this reason. Nothing of the attempt remains.
    Refused(String),
    /// A defect: a message was lost, or something was not given back.
    Broken(String),
}

/// Returns the existing combinations: only x86 has remapping, only a guest a virtual bus.
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
        // The guest sees no IOMMU of the host's.
        Parent::HypervSpi | Parent::HypervApic => layer == Layer::None && world == World::Guest,
    };
    World::ALL.iter().flat_map(move |world| {
        Parent::ALL.iter().flat_map(move |parent| {
            let layers = Layer::ALL.iter().filter(move |layer| exists(*parent, **layer, *world));
            layers.map(move |layer| (*parent, *layer, *world))
        })
    })
}
