//! A vCPU whose CPU interface is in software or in list registers.

use crate::hardware::vtr;
use gic_arch::icc::SysRegEncoding;
use gic_arch::ich::Vtr;
use vgic::{Inputs, ListRegisterVcpu, Paused, Sleep, Vcpu};

/// A vCPU of either kind.
pub(crate) enum Half {
    Software(Vcpu),
    /// A vCPU with list registers, and the virtual interface of the CPUs that it runs on.
    Lists(ListRegisterVcpu, Vtr),
}

/// Calls a method that both kinds of vCPU have.
macro_rules! either {
    ($half:expr, $vcpu:ident => $call:expr) => {
        match $half {
            Half::Software($vcpu) => $call,
            Half::Lists($vcpu, _) => $call,
        }
    };
}

impl Half {
    /// Creates a half with this number of list registers. 0 selects a software CPU interface.
    /// `has_tds` is the value of `ICH_VTR_EL2.TDS`.
    pub(crate) fn new(vcpu: Vcpu, lists: u8, has_tds: bool) -> Self {
        if lists == 0 {
            return Self::Software(vcpu);
        }
        let vtr = vtr(lists, vcpu.vgic().config().priority_bits).with_tds(has_tds);
        Self::Lists(vcpu.with_list_registers(vtr).unwrap(), vtr)
    }

    pub(crate) fn read_sysreg(&mut self, register: SysRegEncoding) -> u64 {
        either!(self, vcpu => vcpu.read_sysreg(register).unwrap())
    }

    pub(crate) fn write_sysreg(&mut self, register: SysRegEncoding, value: u64) {
        either!(self, vcpu => vcpu.write_sysreg(register, value).unwrap());
    }

    pub(crate) fn inputs(&mut self) -> Inputs {
        either!(self, vcpu => vcpu.inputs())
    }

    pub(crate) fn prepare_to_sleep(&mut self) -> Sleep {
        either!(self, vcpu => vcpu.prepare_to_sleep())
    }

    pub(crate) fn returned(&mut self) {
        either!(self, vcpu => vcpu.returned());
    }

    pub(crate) fn reset(&mut self) {
        either!(self, vcpu => vcpu.reset());
    }

    pub(crate) fn pause(&mut self) -> Paused<'_> {
        either!(self, vcpu => vcpu.pause())
    }

    pub(crate) fn cpu(&self) -> usize {
        either!(self, vcpu => vcpu.cpu().index())
    }
}
