//! Folds the list registers back into the model after a guest exit.

use super::ListRegisterVcpu;
use crate::cpu::listed::{Listed, VirtualInterface};
use crate::cpu::vcpu::Vcpu;
use crate::wired::Group;
use crate::wired::index::WiredIndex;
use gic_arch::IntId;
use gic_arch::ich::{ListRegister, ListRegisterState};

impl ListRegisterVcpu {
    /// Returns `true` if the vCPU was idle, and the guest didn't change the loaded state.
    #[inline]
    pub(super) fn stays_left(&self, left: &VirtualInterface) -> bool {
        self.0.own.wakeup.is_idle() && left.hcr.eoi_count() == 0 && self.is_as_loaded(left)
    }

    /// Returns `true` if the guest didn't change its CPU interface.
    #[inline]
    fn is_as_loaded(&self, left: &VirtualInterface) -> bool {
        let loaded = &self.0.list_registers.interface;
        left.vmcr == loaded.vmcr
            && (left.active_priorities == loaded.active_priorities
                || self.has_priorities_as_loaded(left))
    }

    /// Compares the active priorities. Registers that the CPU doesn't implement are ignored.
    #[inline(never)]
    fn has_priorities_as_loaded(&self, left: &VirtualInterface) -> bool {
        let Vcpu { interface, list_registers: lists, .. } = &self.0;
        let implemented = interface.features().active_priority_registers();
        let pairs = left.active_priorities.iter().zip(&lists.interface.active_priorities);
        pairs.into_iter().all(|(left, loaded)| {
            left.iter().zip(loaded).take(implemented).all(|(left, loaded)| left == loaded)
        })
    }

    /// Returns `true` if no interrupt was in a list register, and the guest didn't end an interrupt
    /// that wasn't.
    pub(super) fn has_nothing_to_fold(&self, left: &VirtualInterface) -> bool {
        self.0.list_registers.used == 0 && left.hcr.eoi_count() == 0
    }

    /// Folds the hardware state back into the model. With `EOImode` set, an EOI doesn't deactivate
    /// the interrupt. The mode at the guest entry determines this, because the guest may have
    /// changed `EOImode` since.
    pub(super) fn fold(&mut self, left: &VirtualInterface) {
        let ended = if self.0.interface.splits_eoi() { 0 } else { left.hcr.eoi_count() };
        self.load(left);
        (0..ended).for_each(|_| self.end_unlisted());
        self.fold_each(|at, _| left.list[at]);
    }

    /// Loads the guest's changes to its CPU interface, and publishes the enabled groups.
    pub(super) fn load(&mut self, left: &VirtualInterface) {
        if self.is_as_loaded(left) {
            return;
        }
        let Self(vcpu) = self;
        let Vcpu { interface, list_registers: lists, .. } = vcpu;
        lists.made_for = None;
        interface.load(left.vmcr, left.active_priorities);
        vcpu.publish_interface();
        for group in [Group::Zero, Group::One] {
            vcpu.publish(group);
        }
    }

    /// Folds all list registers as if the guest had left them unchanged.
    pub(super) fn fold_as_filled(&mut self) {
        self.fold_each(|_, listed| {
            let filled = match listed {
                Listed::Wired(_, filled) => filled.state,
                Listed::Nothing | Listed::Lpi(_) => ListRegisterState::Pending,
            };
            ListRegister::new().with_state(filled)
        });
    }

    /// Empties the list registers, and folds their contents into the model. `left` returns the
    /// value that the guest left in each list register.
    pub(super) fn fold_each(&mut self, left: impl Fn(usize, Listed) -> ListRegister) {
        for at in 0..self.0.list_registers.empty() {
            let listed = self.0.list_registers.listed[at];
            let left = left(at, listed);
            self.0.acknowledged += u64::from(was_acknowledged(listed, left));
            self.fold_one(listed, left);
        }
        self.0.publish_activity();
    }

    fn fold_one(&mut self, listed: Listed, left: ListRegister) {
        let Self(vcpu) = self;
        match listed {
            Listed::Nothing => {}
            Listed::Lpi(lpi) => {
                if let Some(lpis) = &mut vcpu.lpis {
                    lpis.fold(lpi, left.state() == ListRegisterState::Pending);
                }
            }
            Listed::Wired(index, filled) => {
                let folded = vcpu.gic.wired().fold(vcpu.cpu, index, filled, left);
                if folded.is_some_and(|state| state.active()) {
                    vcpu.list_registers.active.insert(index);
                }
            }
        }
    }

    /// Deactivates an interrupt that the guest ended while it wasn't in a list register. The
    /// hardware doesn't report which interrupt ended. Because handlers nest, it must be the one
    /// that the guest acknowledged last.
    fn end_unlisted(&mut self) {
        let Self(vcpu) = self;
        let (cpu, wired) = (vcpu.cpu, vcpu.gic.wired());
        let mut found: Option<((bool, u8), IntId)> = None;
        vcpu.list_registers.active.retain(|index: WiredIndex| {
            let state = wired.state(cpu, index);
            if state.active_at(cpu) {
                let rank = (state.end_rank(), index.intid());
                found = Some(found.map_or(rank, |best| best.min(rank)));
            }
            state.active()
        });
        if let Some((_, intid)) = found {
            wired.deactivate(cpu, intid);
        }
    }
}

/// Returns `true` if the guest acknowledged an interrupt that was listed as pending.
fn was_acknowledged(listed: Listed, left: ListRegister) -> bool {
    let was_pending = match listed {
        Listed::Nothing => false,
        Listed::Lpi(_) => true,
        Listed::Wired(_, filled) => filled.state == ListRegisterState::Pending,
    };
    was_pending && left.state() != ListRegisterState::Pending
}
