//! GICv2m frames (Arm Server Base System Architecture, appendix on GICv2m). Each frame has a size
//! of 4 KiB and contains a doorbell for SPIs.

use crate::reg::{register_frame, register_values};
use crate::{Pidr2, ReadOnly, Reg, RegArray, WriteOnly};
use bitfield_struct::bitfield;

/// Size of the frame in bytes.
pub const FRAME_SIZE: u64 = 0x1000;

/// All identification registers, starting with `PIDR4`. As in the larger frames of a GICv3, these
/// registers are at the end of the frame.
pub const ID_REGISTERS: RegArray<u32, ReadOnly> = RegArray::at(0xfd0, 12);
/// Peripheral identification register 2, with the architecture revision.
pub const PIDR2: Reg<Pidr2, ReadOnly> = Reg::at(0xfe8);

register_frame! {
    /// All registers of the frame except the identification registers, in ascending order of their
    /// offsets.
    REGISTERS;
    /// SPIs that can be signaled through the frame's doorbell.
    TYPER: Reg<Typer, ReadOnly> = Reg::at(0x008);
    /// The doorbell: sets the pending state of the SPI whose INTID is written.
    SETSPI_NS: Reg<u32, WriteOnly> = Reg::at(0x040);
    /// Implementer and revision. Drivers use these values to identify frames with a different SPI
    /// numbering.
    IIDR: Reg<u32, ReadOnly> = Reg::at(0xfcc);
}

/// Value of `MSI_TYPER`.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Typer {
    /// Number of SPIs.
    #[bits(10)]
    pub count: u16,
    #[bits(6)]
    __: u8,
    /// INTID of the first SPI.
    #[bits(10)]
    pub first: u16,
    #[bits(6)]
    __: u8,
}

register_values!(u32: Typer);
