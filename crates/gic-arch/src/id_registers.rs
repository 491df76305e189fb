//! Identification registers, common to all frames (IHI 0069 §12.1).

use crate::reg::register_values;
use crate::{ReadOnly, Reg, RegArray};
use bitfield_struct::bitfield;

/// Identification register offsets, common to all frames.
pub mod id {
    use super::{Pidr2, ReadOnly, Reg, RegArray};

    /// Peripheral identification register 2, with the architecture revision.
    pub const PIDR2: Reg<Pidr2, ReadOnly> = Reg::at(0xffe8);
    /// All identification registers, starting with `PIDR4`.
    pub const REGISTERS: RegArray<u32, ReadOnly> = RegArray::at(0xffd0, 12);
}

/// Value of `GICx_IIDR`: implementer, product and revision. Drivers use this value to look up
/// errata.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Iidr {
    /// Implementer's JEP106 code; 0x43b is Arm.
    #[bits(12)]
    pub implementer: u16,
    /// Minor revision.
    #[bits(4)]
    pub revision: u8,
    /// Major revision or variant.
    #[bits(4)]
    pub variant: u8,
    #[bits(4)]
    __: u8,
    /// Product number.
    pub product_id: u8,
}

/// Value of `GICx_PIDR2`.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Pidr2 {
    #[bits(4)]
    __: u8,
    /// Architecture revision, encoded as in [`ArchRevision`].
    #[bits(4)]
    pub arch_rev: u8,
    #[bits(24)]
    __: u32,
}

/// GIC architecture revision implemented by a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ArchRevision {
    /// GICv1.
    V1,
    /// GICv2.
    V2,
    /// GICv3.
    V3,
    /// GICv4.
    V4,
    /// Not defined by the architecture.
    Unknown(u8),
}

impl Pidr2 {
    /// Decodes the architecture revision.
    pub const fn revision(self) -> ArchRevision {
        match self.arch_rev() {
            1 => ArchRevision::V1,
            2 => ArchRevision::V2,
            3 => ArchRevision::V3,
            4 => ArchRevision::V4,
            other => ArchRevision::Unknown(other),
        }
    }
}

register_values!(u32: Iidr, Pidr2);
