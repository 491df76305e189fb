//! Requesters that may use an entry (VT-d specification, chapter 9: SID, SQ, SVT).

use msi_types::RequesterId;

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
