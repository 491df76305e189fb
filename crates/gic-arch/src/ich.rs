//! The hypervisor's view of the CPU interface, `ICH_*` (IHI 0069 §12.4), in AArch64 state.

use crate::icc::{SysReg, system_registers};
use crate::reg::register_values;
use crate::{Priority, ReadOnly};
use bitfield_struct::bitfield;

system_registers! {
    /// Name (without `ICH_` and exception level) and encoding of each register.
    REGISTERS;
    /// Active priorities of virtual Group 0.
    AP0R0: SysReg<u64> = SysReg::at(3, 4, 12, 8, 0);
    /// Active priorities of virtual Group 1.
    AP1R0: SysReg<u64> = SysReg::at(3, 4, 12, 9, 0);
    /// Hypervisor control.
    HCR: SysReg<Hcr> = SysReg::at(3, 4, 12, 11, 0);
    /// Implemented features.
    VTR: SysReg<Vtr, ReadOnly> = SysReg::at(3, 4, 12, 11, 1);
    /// Reasons for which the maintenance interrupt is asserted.
    MISR: SysReg<Misr, ReadOnly> = SysReg::at(3, 4, 12, 11, 2);
    /// List registers whose interrupt ended and wants attention.
    EISR: SysReg<u64, ReadOnly> = SysReg::at(3, 4, 12, 11, 3);
    /// Empty list registers.
    ELRSR: SysReg<u64, ReadOnly> = SysReg::at(3, 4, 12, 11, 5);
    /// The guest's mask, enables and binary points.
    VMCR: SysReg<Vmcr> = SysReg::at(3, 4, 12, 11, 7);
}

/// List register `index` (0–15), `ICH_LR<n>_EL2`; `None` past the end.
pub const fn lr(index: u16) -> Option<SysReg<ListRegister>> {
    match index {
        0..=7 => Some(SysReg::at(3, 4, 12, 12, index)),
        8..=15 => Some(SysReg::at(3, 4, 12, 13, index - 8)),
        _ => None,
    }
}

/// `ICH_HCR_EL2`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Hcr {
    /// The virtual CPU interface is on.
    pub en: bool,
    /// Maintenance interrupt on underflow.
    pub uie: bool,
    /// Maintenance interrupt when an EOI found no list register.
    pub lrenpie: bool,
    /// Maintenance interrupt when nothing is pending.
    pub npie: bool,
    /// Maintenance interrupt while virtual Group 0 is enabled.
    pub vgrp0_eie: bool,
    /// Maintenance interrupt while virtual Group 0 is disabled.
    pub vgrp0_die: bool,
    /// Maintenance interrupt while virtual Group 1 is enabled.
    pub vgrp1_eie: bool,
    /// Maintenance interrupt while virtual Group 1 is disabled.
    pub vgrp1_die: bool,
    /// EOIs of virtual SGIs are not counted.
    pub vsgi_eoi_count: bool,
    __: bool,
    /// Trap of registers common to both groups.
    pub tc: bool,
    /// Trap of Group 0 registers.
    pub tall0: bool,
    /// Trap of Group 1 registers.
    pub tall1: bool,
    /// Trap of locally generated SErrors.
    pub tsei: bool,
    /// Trap of DIR.
    pub tdir: bool,
    /// Direct injection is masked.
    pub dvim: bool,
    #[bits(11)]
    __: u16,
    /// EOIs that found no list register.
    #[bits(5)]
    pub eoi_count: u8,
    #[bits(32)]
    __: u32,
}

/// `ICH_VTR_EL2`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Vtr {
    /// List registers, minus one.
    #[bits(5)]
    pub list_regs_minus_one: u8,
    #[bits(13)]
    __: u16,
    /// Masking of direct injection is supported.
    pub dvim: bool,
    /// Separate trap of DIR is supported.
    pub tds: bool,
    /// Direct injection of virtual interrupts is *not* supported.
    pub n_v4: bool,
    /// Non-zero Aff3 is supported.
    pub a3v: bool,
    /// Local SErrors are supported.
    pub seis: bool,
    /// INTID bits: 0 = 16, 1 = 24.
    #[bits(3)]
    pub id_bits_code: u8,
    /// Preemption bits, minus one.
    #[bits(3)]
    pub pre_bits_minus_one: u8,
    /// Priority bits, minus one.
    #[bits(3)]
    pub pri_bits_minus_one: u8,
    #[bits(32)]
    __: u32,
}

/// `ICH_MISR_EL2`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Misr {
    /// An interrupt that asked for it ended.
    pub eoi: bool,
    /// At most one list register is in use.
    pub u: bool,
    /// An EOI found no list register.
    pub lrenp: bool,
    /// Nothing is pending.
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

/// `ICH_VMCR_EL2`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Vmcr {
    /// Virtual Group 0 is enabled.
    pub veng0: bool,
    /// Virtual Group 1 is enabled.
    pub veng1: bool,
    /// Group 1 can be acknowledged through Group 0's register (GICv2).
    pub v_ack_ctl: bool,
    /// Group 0 is signalled as FIQ.
    pub v_fiq_en: bool,
    /// BPR0 serves both groups.
    pub vcbpr: bool,
    #[bits(4)]
    __: u8,
    /// EOI mode.
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
    /// Empty.
    Invalid = 0,
    /// Pending.
    Pending = 1,
    /// Active.
    Active = 2,
    /// Both.
    PendingActive = 3,
}

impl ListRegisterState {
    /// Decodes the two low bits.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Invalid,
            1 => Self::Pending,
            2 => Self::Active,
            _ => Self::PendingActive,
        }
    }

    /// The two bits.
    pub const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// `ICH_LR<n>_EL2`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ListRegister {
    /// The INTID that the guest sees.
    pub virtual_intid: u32,
    /// With [`hw`](Self::hw): the physical INTID (bits 44:32). Without: bit 41 asks for a
    /// maintenance interrupt at the end, see [`eoi`](Self::eoi).
    #[bits(13)]
    pub physical_intid: u16,
    #[bits(3)]
    __: u8,
    /// Priority. See [`priority`](Self::priority).
    pub priority_value: u8,
    #[bits(3)]
    __: u8,
    /// Non-maskable.
    pub nmi: bool,
    /// Virtual Group 1.
    pub group1: bool,
    /// Tied to a physical interrupt that is deactivated along with it.
    pub hw: bool,
    /// State.
    #[bits(2)]
    pub state: ListRegisterState,
}

impl ListRegister {
    /// The priority.
    pub const fn priority(self) -> Priority {
        Priority::new(self.priority_value())
    }

    /// Without [`hw`](Self::hw): a maintenance interrupt is asked for when the guest ends this
    /// interrupt.
    pub const fn eoi(self) -> bool {
        !self.hw() && self.physical_intid() & (1 << 9) != 0
    }

    /// Asks for (or not) a maintenance interrupt at the end; for list registers without
    /// [`hw`](Self::hw).
    pub const fn with_eoi(self, eoi: bool) -> Self {
        self.with_physical_intid(if eoi { 1 << 9 } else { 0 })
    }
}

register_values!(u64: Hcr, Vtr, Misr, Vmcr, ListRegister);
