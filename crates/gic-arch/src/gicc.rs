//! The CPU interface of a GICv2, `GICC_*` (IHI 0048 §4.4): memory-mapped and banked, so that each
//! CPU accesses its own registers at the same address. A GICv3 uses system registers instead
//! ([`icc`](crate::icc)).

use crate::reg::{register_frame, register_values};
use crate::{ReadOnly, Reg, RegArray, WriteOnly};
use bitfield_struct::bitfield;

/// Size of both pages in bytes. [`DIR`] is in the second page.
pub const FRAME_SIZE: u64 = 0x2000;
/// Size of the first page in bytes, which contains all registers except [`DIR`].
pub const FIRST_PAGE_SIZE: u64 = 0x1000;

register_frame! {
    /// All registers, in ascending order of their offsets.
    REGISTERS;
    /// Control register. Its layout depends on the security view; bit 0 enables Group 0 for Secure
    /// software and Group 1 for Non-secure software.
    CTLR: Reg<Ctlr> = Reg::at(0x0000);
    /// Priority mask register: only interrupts with a higher priority are signaled.
    PMR: Reg<u32> = Reg::at(0x0004);
    /// Binary point register, which splits a priority into group priority and subpriority.
    BPR: Reg<u32> = Reg::at(0x0008);
    /// Interrupt acknowledge register: a read acknowledges the highest-priority pending interrupt.
    IAR: Reg<Iar, ReadOnly> = Reg::at(0x000c);
    /// End of interrupt register: write the value read from [`IAR`].
    EOIR: Reg<Iar, WriteOnly> = Reg::at(0x0010);
    /// Running priority register.
    RPR: Reg<u32, ReadOnly> = Reg::at(0x0014);
    /// Highest-priority pending interrupt register: like [`IAR`], but does not acknowledge the
    /// interrupt.
    HPPIR: Reg<Iar, ReadOnly> = Reg::at(0x0018);
    /// Alias of [`BPR`] for Group 1 interrupts, used by Secure software.
    ABPR: Reg<u32> = Reg::at(0x001c);
    /// Alias of [`IAR`] for Group 1 interrupts, used by Secure software.
    AIAR: Reg<Iar, ReadOnly> = Reg::at(0x0020);
    /// Alias of [`EOIR`] for Group 1 interrupts, used by Secure software.
    AEOIR: Reg<Iar, WriteOnly> = Reg::at(0x0024);
    /// Alias of [`HPPIR`] for Group 1 interrupts, used by Secure software.
    AHPPIR: Reg<Iar, ReadOnly> = Reg::at(0x0028);
    /// Active priority registers.
    APR: RegArray<u32> = RegArray::at(0x00d0, 4);
    /// Active priority registers for Group 1, for Secure software.
    NSAPR: RegArray<u32> = RegArray::at(0x00e0, 4);
    /// Identification of the implementer and revision.
    IIDR: Reg<u32, ReadOnly> = Reg::at(0x00fc);
    /// Deactivates an interrupt whose priority was dropped with `EOImode` = 1.
    DIR: Reg<Iar, WriteOnly> = Reg::at(0x1000);
}

/// Value of `GICC_CTLR` as seen by Secure software or by a GIC without Security Extensions. In the
/// Non-secure view, bits 0 and 9 are `EnableGrp1` and `EOImodeNS`, and bits 5 and 6 are the bypass
/// bits of that view.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Ctlr {
    /// Group 0 interrupts are signaled. In the Non-secure view, the bit applies to Group 1.
    pub enable_grp0: bool,
    /// Group 1 interrupts are signaled.
    pub enable_grp1: bool,
    /// [`IAR`] also acknowledges Group 1 interrupts.
    pub ack_ctl: bool,
    /// Group 0 interrupts are signaled as FIQs.
    pub fiq_en: bool,
    /// Both groups use the same binary point.
    pub cbpr: bool,
    /// The FIQ bypass of Group 0 is disabled.
    pub fiq_byp_dis_grp0: bool,
    /// The IRQ bypass of Group 0 is disabled.
    pub irq_byp_dis_grp0: bool,
    /// The FIQ bypass of Group 1 is disabled.
    pub fiq_byp_dis_grp1: bool,
    /// The IRQ bypass of Group 1 is disabled.
    pub irq_byp_dis_grp1: bool,
    /// `EOIR` drops the priority without deactivating the interrupt. In the Non-secure view, the
    /// bit applies to Group 1.
    pub eoi_mode_s: bool,
    /// `EOIR` drops the priority of Group 1 interrupts without deactivating them.
    pub eoi_mode_ns: bool,
    #[bits(21)]
    __: u32,
}

/// Value that `GICC_IAR` returns and that is written to `GICC_EOIR`.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Iar {
    /// INTID; 1020 to 1023 mean that no interrupt was acknowledged.
    #[bits(10)]
    pub intid: u16,
    /// For an SGI, the CPU interface that sent it.
    #[bits(3)]
    pub cpu_id: u8,
    #[bits(19)]
    __: u32,
}

/// Value of a GICv2's `GICD_SGIR`.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Sgir {
    /// Number of the SGI.
    #[bits(4)]
    pub intid: u8,
    #[bits(11)]
    __: u16,
    /// Forwards an SGI only to CPU interfaces where the SGI is in Group 1. Only Secure software can
    /// use this bit.
    pub nsatt: bool,
    /// Target CPU interfaces, with one bit for each CPU interface.
    pub target_list: u8,
    /// Target filter. 0: the CPU interfaces in the list; 1: all CPU interfaces except the sender;
    /// 2: only the sender.
    #[bits(2)]
    pub target_list_filter: u8,
    #[bits(6)]
    __: u8,
}

register_values!(u32: Ctlr, Iar, Sgir);
