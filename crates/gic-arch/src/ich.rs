//! The hypervisor's registers of the CPU interface, `ICH_*` (IHI 0069 §12.4), in AArch64 state.

use crate::icc::{SysReg, system_registers};
use crate::reg::register_values;
use crate::{Priority, ReadOnly};
use bitfield_struct::bitfield;

system_registers! {
    /// Name (without `ICH_` and the exception level) and encoding of each register.
    REGISTERS;
    /// Active priorities of virtual Group 0.
    AP0R0: SysReg<u64> = SysReg::at(3, 4, 12, 8, 0);
    /// Active priorities of virtual Group 1.
    AP1R0: SysReg<u64> = SysReg::at(3, 4, 12, 9, 0);
    /// Hypervisor control register.
    HCR: SysReg<Hcr> = SysReg::at(3, 4, 12, 11, 0);
    /// Implemented features.
    VTR: SysReg<Vtr, ReadOnly> = SysReg::at(3, 4, 12, 11, 1);
    /// Reasons why the maintenance interrupt is asserted.
    MISR: SysReg<Misr, ReadOnly> = SysReg::at(3, 4, 12, 11, 2);
    /// List registers whose interrupt has ended and that request a maintenance interrupt at its
    /// end.
    EISR: SysReg<u64, ReadOnly> = SysReg::at(3, 4, 12, 11, 3);
    /// List registers that are empty.
    ELRSR: SysReg<u64, ReadOnly> = SysReg::at(3, 4, 12, 11, 5);
    /// The guest's priority mask, group enables and binary points.
    VMCR: SysReg<Vmcr> = SysReg::at(3, 4, 12, 11, 7);
}

/// Returns list register `index` (0–15), `ICH_LR<n>_EL2`, or `None` if `index` is above 15.
pub const fn lr(index: u16) -> Option<SysReg<ListRegister>> {
    match index {
        0..=7 => Some(SysReg::at(3, 4, 12, 12, index)),
        8..=15 => Some(SysReg::at(3, 4, 12, 13, index - 8)),
        _ => None,
    }
}

/// Value of `ICH_HCR_EL2`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Hcr {
    /// The virtual CPU interface is enabled.
    pub en: bool,
    /// The maintenance interrupt is asserted while at most one list register is in use (underflow).
    pub uie: bool,
    /// The maintenance interrupt is asserted after an EOI without a matching list register.
    pub lrenpie: bool,
    /// The maintenance interrupt is asserted while no list register is pending.
    pub npie: bool,
    /// The maintenance interrupt is asserted while virtual Group 0 is enabled.
    pub vgrp0_eie: bool,
    /// The maintenance interrupt is asserted while virtual Group 0 is disabled.
    pub vgrp0_die: bool,
    /// The maintenance interrupt is asserted while virtual Group 1 is enabled.
    pub vgrp1_eie: bool,
    /// The maintenance interrupt is asserted while virtual Group 1 is disabled.
    pub vgrp1_die: bool,
    /// EOIs of virtual SGIs are not counted in `eoi_count`.
    pub vsgi_eoi_count: bool,
    __: bool,
    /// Accesses to registers common to both groups are trapped.
    pub tc: bool,
    /// Accesses to Group 0 registers are trapped.
    pub tall0: bool,
    /// Accesses to Group 1 registers are trapped.
    pub tall1: bool,
    /// Locally generated SErrors are trapped.
    pub tsei: bool,
    /// Writes to `DIR` are trapped.
    pub tdir: bool,
    /// Direct injection is masked.
    pub dvim: bool,
    #[bits(11)]
    __: u16,
    /// Number of EOIs without a matching list register.
    #[bits(5)]
    pub eoi_count: u8,
    #[bits(32)]
    __: u32,
}

/// Value of `ICH_VTR_EL2`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Vtr {
    /// Number of list registers, minus one.
    #[bits(5)]
    pub list_regs_minus_one: u8,
    #[bits(13)]
    __: u16,
    /// Masking of direct injection is supported.
    pub dvim: bool,
    /// A separate trap of `DIR` is supported.
    pub tds: bool,
    /// Direct injection of virtual interrupts is *not* supported.
    pub n_v4: bool,
    /// Non-zero values of Aff3 are supported.
    pub a3v: bool,
    /// Locally generated SErrors are supported.
    pub seis: bool,
    /// INTID width. 0: 16 bits; 1: 24 bits.
    #[bits(3)]
    pub id_bits_code: u8,
    /// Number of preemption bits, minus one.
    #[bits(3)]
    pub pre_bits_minus_one: u8,
    /// Number of priority bits, minus one.
    #[bits(3)]
    pub pri_bits_minus_one: u8,
    #[bits(32)]
    __: u32,
}

/// Value of `ICH_MISR_EL2`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Misr {
    /// An interrupt ended, and its list register requests a maintenance interrupt.
    pub eoi: bool,
    /// At most one list register is in use.
    pub u: bool,
    /// An EOI had no matching list register.
    pub lrenp: bool,
    /// No list register is pending.
    pub np: bool,
    /// Virtual Group 0 is enabled.
    pub vgrp0_e: bool,
    /// Virtual Group 0 is disabled.
    pub vgrp0_d: bool,
    /// Virtual Group 1 is enabled.
    pub vgrp1_e: bool,
    /// Virtual Group 1 is disabled.
    pub vgrp1_d: bool,
    #[bits(56)]
    __: u64,
}

/// Value of `ICH_VMCR_EL2`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Vmcr {
    /// Virtual Group 0 is enabled.
    pub veng0: bool,
    /// Virtual Group 1 is enabled.
    pub veng1: bool,
    /// Group 1 interrupts can be acknowledged through Group 0's register (GICv2).
    pub v_ack_ctl: bool,
    /// Group 0 interrupts are signaled as FIQs.
    pub v_fiq_en: bool,
    /// `BPR0` applies to both groups.
    pub vcbpr: bool,
    #[bits(4)]
    __: u8,
    /// `EOIR` only drops the priority; `DIR` deactivates the interrupt.
    pub veoim: bool,
    #[bits(8)]
    __: u8,
    /// Binary point of virtual Group 1.
    #[bits(3)]
    pub vbpr1: u8,
    /// Binary point of virtual Group 0.
    #[bits(3)]
    pub vbpr0: u8,
    /// Priority mask.
    pub vpmr: u8,
    #[bits(32)]
    __: u32,
}

/// State of a list register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ListRegisterState {
    /// The list register is empty.
    Invalid = 0,
    /// The interrupt is pending.
    Pending = 1,
    /// The interrupt is active.
    Active = 2,
    /// The interrupt is pending and active.
    PendingActive = 3,
}

impl ListRegisterState {
    /// Decodes the two low bits of `bits`.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Invalid,
            1 => Self::Pending,
            2 => Self::Active,
            _ => Self::PendingActive,
        }
    }

    /// Returns the two-bit encoding.
    pub const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// Value of `ICH_LR<n>_EL2`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ListRegister {
    /// INTID that the guest acknowledges.
    pub virtual_intid: u32,
    /// If [`hw`](Self::hw) is set, the physical INTID (bits 44:32). Otherwise, bit 41 requests a
    /// maintenance interrupt when the interrupt ends; see [`eoi`](Self::eoi).
    #[bits(13)]
    pub physical_intid: u16,
    #[bits(3)]
    __: u8,
    /// Priority of the interrupt; see [`priority`](Self::priority).
    pub priority_value: u8,
    #[bits(3)]
    __: u8,
    /// The interrupt is non-maskable.
    pub nmi: bool,
    /// The interrupt is in virtual Group 1 if the bit is set, and otherwise in virtual Group 0.
    pub group1: bool,
    /// The interrupt is linked to a physical interrupt, which the hardware deactivates together
    /// with the virtual interrupt.
    pub hw: bool,
    /// State of the interrupt.
    #[bits(2)]
    pub state: ListRegisterState,
}

impl ListRegister {
    /// Returns the priority of the interrupt.
    pub const fn priority(self) -> Priority {
        Priority::new(self.priority_value())
    }

    /// Returns `true` if a maintenance interrupt is requested when this interrupt ends. Always
    /// `false` if [`hw`](Self::hw) is set.
    pub const fn eoi(self) -> bool {
        !self.hw() && self.physical_intid() & (1 << 9) != 0
    }

    /// Selects whether a maintenance interrupt is requested when this interrupt ends. Must only be
    /// used if [`hw`](Self::hw) is not set.
    pub const fn with_eoi(self, eoi: bool) -> Self {
        self.with_physical_intid(if eoi { 1 << 9 } else { 0 })
    }
}

register_values!(u64: Hcr, Vtr, Misr, Vmcr, ListRegister);
