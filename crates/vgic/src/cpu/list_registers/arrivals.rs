//! Lists the interrupts that arrive while the vCPU is in guest mode.

use super::fill::{lpi_register, wired_register};
use super::rank::Seen;
use super::{InGuest, ListRegisterVcpu};
use crate::cpu::listed::{Listed, Unlisted};
use crate::cpu::vcpu::Vcpu;
use crate::lpi::ReadyLpi;
use gic_arch::Priority;
use gic_arch::ich::{ListRegister, Vmcr};
use msi_types::explain::Group;
use msi_types::{DeviceId, MsiMessage};

impl InGuest<'_> {
    /// Stops kicks until the vCPU [lists new interrupts](Self::list_arrivals) or
    /// [exits](Self::exit). One of these must follow before the guest runs again, because new
    /// interrupts do not kick the vCPU until then. Intended for hypervisors that handle physical
    /// interrupts before the exit. Other vCPUs may already be waiting for the exit, so the handlers
    /// must not wait for other vCPUs.
    #[inline]
    pub fn returned(&mut self) {
        self.0.0.own.wakeup.returned();
    }

    /// Moves the interrupts that have arrived since the entry into the list registers, so that the
    /// guest can continue after a kick without an exit. `vmcr` is `ICH_VMCR_EL2`, and `empty` is
    /// `ICH_ELRSR_EL2`. The maintenance interrupt must not be asserted.
    ///
    /// If the method returns `true`, the caller must load the list registers of
    /// [`interface`](Self::interface); all other registers are unchanged, and the next interrupt
    /// kicks the vCPU again. The caller must forget earlier kicks before the call, and look for new
    /// ones after it. At the exit, it must empty all list registers that were loaded since the
    /// entry.
    ///
    /// Returns `false` if the vCPU must [exit](Self::exit): list registers are not empty, the guest
    /// has changed `ICH_VMCR_EL2` or was entered in a handler, or the new interrupts need other
    /// changes to the interface, e.g. because they do not fit. The list registers of the interface
    /// are then unchanged or empty.
    pub fn list_arrivals(&mut self, vmcr: Vmcr, empty: u32) -> bool {
        let Self(vcpu) = self;
        let lists = &vcpu.0.list_registers;
        let used = (1_u32 << lists.used) - 1;
        // An exit updates the model's active priorities. If none was active, they are up to date
        // whenever the guest runs no handler.
        let was_idle = vcpu.0.interface.running() == Priority::IDLE;
        if empty & used != used || lists.interface.vmcr != vmcr || !was_idle {
            return false;
        }
        if vcpu.list_again() {
            return true;
        }
        vcpu.fold_each(|_, _| ListRegister::new());
        vcpu.0.wakeup.folded_to_enter(&vcpu.0.own.wakeup);
        vcpu.fill_again()
    }

    /// Signals a device's message to this vCPU, and moves its LPI into a list register at once, so
    /// that the guest can continue without an exit or a kick. `vmcr` is `ICH_VMCR_EL2`, and `empty`
    /// is `ICH_ELRSR_EL2`. The maintenance interrupt must not be asserted.
    ///
    /// Returns the index of the list register of [`interface`](Self::interface) that the caller
    /// must load; all other registers are unchanged. At the exit, the caller must empty all list
    /// registers that were loaded since the entry.
    ///
    /// Returns `None` without any effect if the message does not signal an LPI of this vCPU, or if
    /// that LPI needs more than a list register, e.g. because none is free, because the guest has
    /// disabled the group or changed `ICH_VMCR_EL2`, or because the vCPU was kicked. The caller
    /// must then signal the message to the ITS.
    pub fn list_message(
        &mut self,
        from: DeviceId,
        message: MsiMessage,
        vmcr: Vmcr,
        _empty: u32,
    ) -> Option<usize> {
        let Vcpu { gic, lpis, list_registers: lists, .. } = &self.0.0;
        let found = gic.its.iter().find_map(|its| its.find(from, message))?;
        let is_current =
            lists.interface.vmcr == vmcr && lists.made_for == Some(Unlisted::default());
        if !is_current {
            return None;
        }
        let place = |ready: ReadyLpi, listed, is_listed| {
            let index = lists.place_for(ready, listed, is_listed)?;
            self.takes_lpis().then_some((index, ready, listed))
        };
        let (index, ready, listed) = lpis.as_ref()?.list_message(found, place)?;
        let Self(vcpu) = self;
        vcpu.0.list_registers.put(index, Listed::Lpi(listed), lpi_register(ready));
        Some(index)
    }

    /// Returns `true` if LPIs are forwarded to the guest. From then on, the list registers can be
    /// recalled.
    fn takes_lpis(&self) -> bool {
        let Self(vcpu) = self;
        // The order matters: a thread that changes what we read next recalls list registers that
        // are filled.
        vcpu.0.own.wakeup.fills_another()
            && vcpu.0.interface.takes(Group::One)
            && vcpu.0.is_distributed(Group::One)
    }
}

impl ListRegisterVcpu {
    /// Fast path of [`InGuest::list_arrivals`]: if the only interrupt that has arrived is the one
    /// that the only list register in use held, puts it there again, without a fold and a fill.
    /// Returns `false` in all other cases.
    fn list_again(&mut self) -> bool {
        let Self(vcpu) = self;
        let lists = &vcpu.list_registers;
        let is_plain = lists.used == 1
            && lists.listed[0].is_plain()
            && lists.active.is_empty()
            && lists.made_for == Some(Unlisted::default());
        // The order matters: an interrupt that arrives after we looked for others kicks the vCPU.
        if !is_plain || !vcpu.own.wakeup.lists_again() {
            return false;
        }
        let Some(register) = self.only_arrival() else {
            self.0.returned();
            return false;
        };
        self.0.list_registers.interface.list[0] = register;
        self.0.exit_for_work();
        true
    }

    /// Lists the interrupt of the first list register again, if no other has arrived. Returns the
    /// value of the list register.
    fn only_arrival(&mut self) -> Option<ListRegister> {
        let Self(vcpu) = self;
        if let Some(lpis) = vcpu.lpis.as_mut().filter(|lpis| !lpis.is_empty()) {
            lpis.prune();
            if !lpis.is_empty() {
                return None;
            }
        }
        let Vcpu { cpu, gic, own, lpis, list_registers: lists, interface, .. } = &*vcpu;
        let candidates = &own.private.candidates;
        let forwards = |group| interface.takes(group) && vcpu.is_distributed(group);
        match lists.listed[0] {
            Listed::Lpi(listed) if candidates.is_empty() && forwards(Group::One) => {
                lpis.as_ref()?.list_again(listed).map(lpi_register)
            }
            Listed::Wired(index, filled) => {
                let only = candidates.take_only()?;
                let wired = (only == index).then(|| gic.wired());
                let state = wired.and_then(|wired| wired.list_again(*cpu, index, forwards));
                if state.is_none() {
                    candidates.set(only);
                }
                Some(wired_register(Seen { index, state: state? }, filled))
            }
            _ => None,
        }
    }
}
