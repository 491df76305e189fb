//! GICv2m frames (Arm Server Base System Architecture, appendix on GICv2m): a doorbell for SPIs, 4
//! KiB.

use crate::reg::{register_frame, register_values};
use crate::{Pidr2, ReadOnly, Reg, RegArray, WriteOnly};
use bitfield_struct::bitfield;

/// Size of the frame in bytes.
pub const FRAME_SIZE: u64 = 0x1000;

/// All identification registers, `PIDR4` first: where those of the larger frames lie in their last
/// page.
pub const ID_REGISTERS: RegArray<u32, ReadOnly> = RegArray::at(0xfd0, 12);
/// Peripheral identification 2: the architecture revision.
pub const PIDR2: Reg<Pidr2, ReadOnly> = Reg::at(0xfe8);

register_frame! {
    /// Every register of the frame but the identification registers, by ascending offset.
    REGISTERS;
    /// SPIs that the frame's doorbell makes pending.
    TYPER: Reg<Typer, ReadOnly> = Reg::at(0x008);
    /// The doorbell: makes the SPI written pending.
    SETSPI_NS: Reg<u32, WriteOnly> = Reg::at(0x040);
    /// Implementer and revision, which identify frames that number SPIs differently.
    IIDR: Reg<u32, ReadOnly> = Reg::at(0xfcc);
}

/// `MSI_TYPER`.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Typer {
    /// Number of SPIs.
    #[bits(10)]
    pub count: u16,
    #[bits(6)]
    __: u8,
    /// INTID of the first.
    #[bits(10)]
    pub first: u16,
    #[bits(6)]
    __: u8,
}

register_values!(u32: Typer);
