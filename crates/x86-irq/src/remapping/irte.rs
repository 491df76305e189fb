//! Interrupt remapping table entries, and the requesters that may use them (VT-d specification,
//! chapter 9).

use crate::apic::{ApicId, ApicVector};
use crate::message::{DeliveryMode, DestinationMode, Redirection};
use bitfield_struct::bitfield;
use msi_types::{RequesterId, Trigger};

/// Format of APIC IDs in entries (EIME of the table address register).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ApicMode {
    /// 8-bit IDs.
    Xapic,
    /// 32-bit IDs. Messages in the compatibility format are always blocked.
    X2apic,
}

impl ApicMode {
    /// Returns `true` if a physical destination with this ID reaches exactly one APIC.
    pub const fn reaches(self, id: ApicId) -> bool {
        match self {
            Self::Xapic => id.get() < 0xff,
            Self::X2apic => id.get() != u32::MAX,
        }
    }

    pub(super) const fn lay_out(self, id: ApicId) -> u32 {
        match self {
            Self::Xapic => (id.get() & 0xff) << 8,
            Self::X2apic => id.get(),
        }
    }

    pub(super) const fn read(self, destination: u32) -> ApicId {
        ApicId::new(match self {
            Self::Xapic => (destination >> 8) & 0xff,
            Self::X2apic => destination,
        })
    }
}

/// Bits 63:0. This word contains all fields that a move changes, so a move is a single store.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IrteLow {
    /// P: the entry is present.
    pub present: bool,
    /// FPD: faults of this entry are not recorded.
    pub fault_processing_disable: bool,
    /// DM: the destination is logical.
    pub logical: bool,
    /// RH: the hardware may choose among the destinations.
    pub redirection_hint: bool,
    /// TM: level-triggered instead of edge-triggered.
    pub level_triggered: bool,
    /// DLM: delivery mode.
    #[bits(3)]
    pub delivery_mode: u8,
    /// AVAIL: available to software.
    #[bits(4)]
    pub available: u8,
    #[bits(3)]
    reserved_14_12: u8,
    /// IM: the entry posts interrupts to a virtual CPU, and has a different layout.
    pub posted: bool,
    /// V: vector.
    pub vector: u8,
    reserved_31_24: u8,
    /// DST: destination, in the format of [`ApicMode`].
    pub destination: u32,
}

/// Bits 127:64.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IrteHigh {
    /// SID: source ID.
    pub source_id: u16,
    /// SQ: selects the function number bits of the source that are compared.
    #[bits(2)]
    pub source_qualifier: u8,
    /// SVT: selects how the source is checked.
    #[bits(2)]
    pub source_validation: u8,
    #[bits(44)]
    reserved: u64,
}

/// An entry in its memory format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Irte {
    /// Bits 63:0.
    pub low: IrteLow,
    /// Bits 127:64.
    pub high: IrteHigh,
}

/// Target of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IrteTarget {
    /// Destination APIC.
    pub destination: ApicId,
    /// Meaning of the destination.
    pub mode: DestinationMode,
    /// Choice among destinations.
    pub redirection: Redirection,
    /// Effect at the destination.
    pub delivery: DeliveryMode,
    /// Trigger.
    pub trigger: Trigger,
}

impl IrteTarget {
    /// Creates an edge-triggered target that makes `vector` pending at one APIC.
    pub const fn fixed(destination: ApicId, vector: ApicVector) -> Self {
        Self {
            destination,
            mode: DestinationMode::Physical,
            redirection: Redirection::Directed,
            delivery: DeliveryMode::Fixed(vector),
            trigger: Trigger::Edge,
        }
    }

    pub(super) fn encode(&self, mode: ApicMode) -> IrteLow {
        IrteLow::new()
            .with_present(true)
            .with_logical(self.mode == DestinationMode::Logical)
            .with_redirection_hint(self.redirection == Redirection::Hint)
            .with_level_triggered(self.trigger == Trigger::Level)
            .with_delivery_mode(self.delivery.mode())
            .with_vector(self.delivery.vector_number())
            .with_destination(mode.lay_out(self.destination))
    }

    /// Decodes the low word. Returns `None` if reserved bits are set, if the vector or the delivery
    /// mode is illegal, or if interrupts are posted.
    pub(super) fn decode(low: IrteLow, mode: ApicMode) -> Option<Self> {
        let target = Self {
            destination: mode.read(low.destination()),
            mode: if low.logical() { DestinationMode::Logical } else { DestinationMode::Physical },
            redirection: if low.redirection_hint() {
                Redirection::Hint
            } else {
                Redirection::Directed
            },
            delivery: DeliveryMode::from_fields(low.delivery_mode(), low.vector()).ok()?,
            trigger: if low.level_triggered() { Trigger::Level } else { Trigger::Edge },
        };
        // Encoding writes every reserved bit as 0.
        let ignored = low.with_fault_processing_disable(false).with_available(0);
        (target.encode(mode) == ignored).then_some(target)
    }
}

/// An entry whose destination is not yet encoded for an APIC mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Filled {
    pub(super) target: IrteTarget,
    pub(super) source: Source,
}

impl Irte {
    pub(super) const fn present(target: IrteTarget, source: Source) -> Filled {
        Filled { target, source }
    }

    /// Returns the requesters that may use the entry, or `None` if the entry's source fields have
    /// reserved values.
    pub fn source(&self) -> Option<Source> {
        let check =
            SourceCheck::from_fields(self.high.source_validation(), self.high.source_qualifier())?;
        (self.high.reserved() == 0).then_some(Source { id: self.high.source_id(), check })
    }

    pub(super) fn high_for(source: Source) -> IrteHigh {
        let (validation, qualifier) = source.check.fields();
        IrteHigh::new()
            .with_source_id(source.id)
            .with_source_qualifier(qualifier)
            .with_source_validation(validation)
    }
}

/// Method of comparing a requester with an entry's source.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SourceCheck {
    /// Requesters are not compared, so any of them may use the entry. Provides no isolation.
    None,
    /// All 16 bits must be equal.
    Exact,
    /// All bits except bit 2 must be equal, which admits the two functions of a phantom pair.
    IgnoreBit2,
    /// All bits except bits 2:1 must be equal.
    IgnoreBits2To1,
    /// All bits except bits 2:0 must be equal, which admits all functions of the device.
    IgnoreFunction,
    /// The bus number must be in the range from bits 15:8 to bits 7:0 of the source, which admits
    /// the devices behind a bridge.
    BusRange,
}

impl SourceCheck {
    /// Returns the fields SVT and SQ.
    pub(super) const fn fields(self) -> (u8, u8) {
        match self {
            Self::None => (0, 0),
            Self::Exact => (1, 0),
            Self::IgnoreBit2 => (1, 1),
            Self::IgnoreBits2To1 => (1, 2),
            Self::IgnoreFunction => (1, 3),
            Self::BusRange => (2, 0),
        }
    }

    /// Decodes the fields SVT and SQ. Returns `None` for the reserved value of SVT.
    pub(super) const fn from_fields(svt: u8, sq: u8) -> Option<Self> {
        match (svt, sq) {
            (0, _) => Some(Self::None),
            (1, 0) => Some(Self::Exact),
            (1, 1) => Some(Self::IgnoreBit2),
            (1, 2) => Some(Self::IgnoreBits2To1),
            (1, 3) => Some(Self::IgnoreFunction),
            (2, _) => Some(Self::BusRange),
            _ => None,
        }
    }
}

/// Requesters that may use an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    /// ID that requesters are compared with.
    pub id: u16,
    /// Method of comparison.
    pub check: SourceCheck,
}

impl Source {
    /// Creates the source of a PCI function that sends with its own requester ID. Returns `None`
    /// for an ID beyond 16 bits.
    pub fn pci(requester: RequesterId) -> Option<Self> {
        Some(Self { id: u16::try_from(requester.get()).ok()?, check: SourceCheck::Exact })
    }

    /// Returns `true` if this requester may use the entry.
    pub fn admits(self, requester: u16) -> bool {
        let differing = self.id ^ requester;
        let [last, first] = self.id.to_le_bytes();
        let [_, bus] = requester.to_le_bytes();
        match self.check {
            SourceCheck::None => true,
            SourceCheck::Exact => differing == 0,
            SourceCheck::IgnoreBit2 => differing & !0b100 == 0,
            SourceCheck::IgnoreBits2To1 => differing & !0b110 == 0,
            SourceCheck::IgnoreFunction => differing & !0b111 == 0,
            SourceCheck::BusRange => (first..=last).contains(&bus),
        }
    }
}
