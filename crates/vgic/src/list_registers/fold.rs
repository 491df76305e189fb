//! After the guest has exited: what it did with the list registers.

use super::{Half, Listed, VirtualInterface};
use crate::slot::Slot;
use crate::wired::Group;
use gic_arch::ich::ListRegisterState;
use gic_arch::{IntId, Priority};

impl Half {
    /// Takes everything back out of the hardware.
    pub(super) fn fold(&mut self, left: &VirtualInterface) {
        self.vcpu.interface.load(left.vmcr, left.active_priorities);
        if !self.vcpu.interface.splits_eoi() {
            (0..left.hcr.eoi_count()).for_each(|_| self.end_unlisted());
        }
        for at in 0..self.count {
            let listed = core::mem::replace(&mut self.listed[at], Listed::Nothing);
            self.fold_one(listed, left.list[at].state());
        }
        for group in [Group::Zero, Group::One] {
            self.vcpu.publish(group);
        }
    }

    /// Takes everything back as it was when the list registers were filled.
    pub(super) fn fold_as_filled(&mut self) {
        for at in 0..self.count {
            let listed = core::mem::replace(&mut self.listed[at], Listed::Nothing);
            let filled = match listed {
                Listed::Wired(_, filled) => filled.state,
                Listed::Nothing | Listed::Lpi(_) => ListRegisterState::Pending,
            };
            self.fold_one(listed, filled);
        }
    }

    fn fold_one(&mut self, listed: Listed, now: ListRegisterState) {
        match listed {
            Listed::Nothing => {}
            Listed::Lpi(lpi) => {
                if let Some(lpis) = &mut self.vcpu.lpis {
                    lpis.fold(lpi, now == ListRegisterState::Pending);
                }
            }
            Listed::Wired(slot, filled) => {
                let folded = self.vcpu.vgic().wired().fold(self.vcpu.cpu(), slot, filled, now);
                if folded.is_some_and(|state| state.active()) {
                    self.active.insert(slot);
                }
            }
        }
    }

    /// The guest ended an interrupt that is in no list register. Which one, the hardware does not
    /// say: as guests end what they acknowledged last, it is the most urgent one.
    fn end_unlisted(&mut self) {
        let (cpu, wired) = (self.vcpu.cpu(), self.vcpu.vgic().wired());
        let mut found: Option<(Priority, IntId)> = None;
        self.active.retain(|slot: Slot| {
            let state = wired.state(cpu, slot);
            if state.active_at(cpu) {
                let rank = (state.priority(), slot.intid());
                found = Some(found.map_or(rank, |best| best.min(rank)));
            }
            state.active()
        });
        if let Some((_, intid)) = found {
            wired.deactivate(cpu, intid);
        }
    }
}
