//! The CPU interface of a GICv2, `GICC_*` (IHI 0048 §4.4): memory-mapped and banked, so that each
//! CPU finds its own at the same address. A GICv3 has system registers instead
//! ([`icc`](crate::icc)).

use crate::reg::{register_frame, register_values};
use crate::{ReadOnly, Reg, RegArray, WriteOnly};
use bitfield_struct::bitfield;

/// Size of both pages in bytes: [`DIR`] lies in the second.
pub const FRAME_SIZE: u64 = 0x2000;
/// Size of the first page, which holds all but [`DIR`].
pub const FIRST_PAGE_SIZE: u64 = 0x1000;

register_frame! {
    /// Every register, by ascending offset.
    REGISTERS;
    /// Control. Its layout depends on the view; bit 0 enables the view's own group in both.
    CTLR: Reg<Ctlr> = Reg::at(0x0000);
    /// Priority mask: only what is more urgent is signalled.
    PMR: Reg<u32> = Reg::at(0x0004);
    /// Binary point: splits a priority into group priority and subpriority.
    BPR: Reg<u32> = Reg::at(0x0008);
    /// Takes the most urgent pending interrupt.
    IAR: Reg<Iar, ReadOnly> = Reg::at(0x000c);
    /// Ends an interrupt: takes what [`IAR`] gave.
    EOIR: Reg<Iar, WriteOnly> = Reg::at(0x0010);
    /// Running priority.
    RPR: Reg<u32, ReadOnly> = Reg::at(0x0014);
    /// The most urgent pending interrupt, not taken.
    HPPIR: Reg<Iar, ReadOnly> = Reg::at(0x0018);
    /// [`BPR`] of Group 1, for Secure software.
    ABPR: Reg<u32> = Reg::at(0x001c);
    /// [`IAR`] of Group 1, for Secure software.
    AIAR: Reg<Iar, ReadOnly> = Reg::at(0x0020);
    /// [`EOIR`] of Group 1, for Secure software.
    AEOIR: Reg<Iar, WriteOnly> = Reg::at(0x0024);
    /// [`HPPIR`] of Group 1, for Secure software.
    AHPPIR: Reg<Iar, ReadOnly> = Reg::at(0x0028);
    /// Active priorities.
    APR: RegArray<u32> = RegArray::at(0x00d0, 4);
    /// Active priorities of Group 1, for Secure software.
    NSAPR: RegArray<u32> = RegArray::at(0x00e0, 4);
    /// Implementer.
    IIDR: Reg<u32, ReadOnly> = Reg::at(0x00fc);
    /// Deactivates an interrupt that was ended with `EOImode` = 1.
    DIR: Reg<Iar, WriteOnly> = Reg::at(0x1000);
}

/// `GICC_CTLR`, as Secure software or a GIC without Security Extensions has it. Non-secure software
/// sees bits 0 and 9 as its own `EnableGrp1` and `EOImodeNS`, 5 and 6 as its own bypass bits.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Ctlr {
    /// Group 0 is signalled; in the Non-secure view: Group 1.
    pub enable_grp0: bool,
    /// Group 1 is signalled.
    pub enable_grp1: bool,
    /// [`IAR`] takes Group 1 interrupts too.
    pub ack_ctl: bool,
    /// Group 0 is signalled as FIQ.
    pub fiq_en: bool,
    /// One binary point for both groups.
    pub cbpr: bool,
    /// The FIQ bypass of Group 0 is off.
    pub fiq_byp_dis_grp0: bool,
    /// The IRQ bypass of Group 0 is off.
    pub irq_byp_dis_grp0: bool,
    /// The FIQ bypass of Group 1 is off.
    pub fiq_byp_dis_grp1: bool,
    /// The IRQ bypass of Group 1 is off.
    pub irq_byp_dis_grp1: bool,
    /// Ending does not deactivate; in the Non-secure view: of Group 1.
    pub eoi_mode_s: bool,
    /// Ending Group 1 does not deactivate.
    pub eoi_mode_ns: bool,
    #[bits(21)]
    __: u32,
}

/// Value that `GICC_IAR` returns and `GICC_EOIR` takes.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Iar {
    /// The interrupt; 1020 to 1023 are none.
    #[bits(10)]
    pub intid: u16,
    /// Of an SGI: the CPU interface that sent it.
    #[bits(3)]
    pub cpu_id: u8,
    #[bits(19)]
    __: u32,
}

/// `GICD_SGIR` of a GICv2.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Sgir {
    /// SGI number.
    #[bits(4)]
    pub intid: u8,
    #[bits(11)]
    __: u16,
    /// For Secure software: only where the SGI is in Group 1.
    pub nsatt: bool,
    /// The CPU interfaces it goes to, one bit each.
    pub target_list: u8,
    /// 0: to those of the list; 1: to all but the sender; 2: to the sender.
    #[bits(2)]
    pub target_list_filter: u8,
    #[bits(6)]
    __: u8,
}

register_values!(u32: Ctlr, Iar, Sgir);
