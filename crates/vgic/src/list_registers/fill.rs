//! Before the guest is entered: which interrupts get a list register.

use super::rank::{Ranked, Seen};
use super::{ListRegisterVcpu, VirtualInterface};
use crate::listed::{Listed, MAX_LIST_REGISTERS};
use crate::lpi::ListedLpi;
use crate::vcpu::Vcpu;
use crate::wired::{Filled, Forwarding, Group, asks_for_end};
use gic_arch::Priority;
use gic_arch::ich::{Hcr, ListRegister, ListRegisterState};

/// Interrupts that wait for a list register.
struct Waiting {
    pending: Ranked,
    active: Ranked,
    /// By group: something is pending that only the guest's own enable keeps from being signalled.
    held_back: [bool; 2],
}

/// What got no list register.
#[derive(Clone, Copy, Default)]
struct Left {
    pending: bool,
    active: bool,
    held_back: [bool; 2],
}

const EMPTY: [ListRegister; MAX_LIST_REGISTERS] = [ListRegister::new(); MAX_LIST_REGISTERS];

impl ListRegisterVcpu {
    /// Is nothing pending or active here, forwarded or not? All that is looked at is loaded, and
    /// nothing is written, unless a bit is stale.
    #[inline]
    pub(super) fn is_idle(&mut self) -> bool {
        let [vcpu] = &mut *self.0;
        let wired = vcpu.gic.wired().private(vcpu.cpu);
        vcpu.list_registers.active.is_empty()
            && wired.is_none_or(|private| private.candidates.is_empty())
            && !self.has_lpi()
    }

    /// As [`fill`](Self::fill), where the vCPU [is idle](Self::is_idle).
    #[inline]
    pub(super) fn unfilled(&self) -> VirtualInterface {
        self.interface(Left::default(), EMPTY)
    }

    fn interface(&self, left: Left, list: [ListRegister; MAX_LIST_REGISTERS]) -> VirtualInterface {
        let interface = &self.0[0].interface;
        VirtualInterface {
            hcr: self.control(left),
            vmcr: interface.vmcr(),
            active_priorities: interface.active_priorities(),
            list,
        }
    }

    /// Fills the list registers, and says which exits are needed for what did not fit.
    pub(super) fn fill(&mut self) -> VirtualInterface {
        let mut waiting = self.waiting();
        let mut list = EMPTY;
        let _ = self.fill_one(&mut list, |vcpu| vcpu.take_pending(&mut waiting));
        while self.fill_one(&mut list, |vcpu| vcpu.take_active(&mut waiting)) {}
        while self.fill_one(&mut list, |vcpu| vcpu.take_pending(&mut waiting)) {}
        let lpis = self.0[0].forwarded()[Group::One.index()] && self.has_lpi();
        let left = Left {
            pending: waiting.pending.any_left() || lpis,
            active: waiting.active.any_left(),
            held_back: waiting.held_back,
        };
        self.interface(left, list)
    }

    /// Fills the next list register with what `take` finds. `false`: there is no room, or nothing
    /// is left.
    fn fill_one(
        &mut self,
        list: &mut [ListRegister; MAX_LIST_REGISTERS],
        take: impl FnOnce(&mut Self) -> Option<(Listed, ListRegister)>,
    ) -> bool {
        let at = self.0[0].list_registers.used;
        if at == self.0[0].list_registers.count {
            return false;
        }
        let Some((listed, register)) = take(self) else { return false };
        self.0[0].list_registers.listed[at] = listed;
        self.0[0].list_registers.used += 1;
        list[at] = register;
        true
    }

    fn waiting(&mut self) -> Waiting {
        let mut waiting =
            Waiting { pending: Ranked::new(), active: Ranked::new(), held_back: [false; 2] };
        let [vcpu] = &mut *self.0;
        let distributed = vcpu.distributed();
        let Vcpu { cpu, ref gic, ref interface, list_registers: ref mut lists, .. } = *vcpu;
        gic.wired().listable(cpu, |index, state| {
            let group = Group::of(state);
            if state.active() {
                lists.active.insert(index);
            } else if distributed[group.index()] && interface.takes(group) {
                waiting.pending.insert(Seen { index, state });
            } else {
                waiting.held_back[group.index()] |= distributed[group.index()];
            }
        });
        lists.active.retain(|index| {
            let state = gic.wired().state(cpu, index);
            if state.active_at(cpu) {
                waiting.active.insert(Seen { index, state });
            }
            state.active_at(cpu)
        });
        let lpis = distributed[Group::One.index()] && !interface.takes(Group::One);
        waiting.held_back[Group::One.index()] |= lpis && self.has_lpi();
        waiting
    }

    /// The most urgent pending interrupt that is left.
    fn take_pending(&mut self, waiting: &mut Waiting) -> Option<(Listed, ListRegister)> {
        loop {
            let than = waiting.pending.first().map_or(Priority::IDLE, |seen| seen.state.priority());
            if let Some(lpi) = self.take_lpi(than) {
                return Some(lpi_register(lpi));
            }
            let seen = waiting.pending.pop()?;
            if let Some(taken) = self.take_wired(seen) {
                return Some(taken);
            }
        }
    }

    /// The most urgent active interrupt that is left.
    fn take_active(&mut self, waiting: &mut Waiting) -> Option<(Listed, ListRegister)> {
        loop {
            let seen = waiting.active.pop()?;
            if let Some(taken) = self.take_wired(seen) {
                return Some(taken);
            }
        }
    }

    fn take_lpi(&mut self, than: Priority) -> Option<ListedLpi> {
        let [vcpu] = &mut *self.0;
        if vcpu.forwarded()[Group::One.index()] { vcpu.lpis.as_mut()?.list(than) } else { None }
    }

    fn take_wired(&self, seen: Seen) -> Option<(Listed, ListRegister)> {
        let [vcpu] = &*self.0;
        let distributed = vcpu.distributed()[Group::of(seen.state).index()];
        let forwarding = if distributed { Forwarding::Enabled } else { Forwarding::Disabled };
        let filled = vcpu.gic.wired().list(vcpu.cpu, seen.index, seen.state, forwarding)?;
        Some((Listed::Wired(seen.index, filled), wired_register(seen, filled)))
    }

    /// Is an LPI pending?
    fn has_lpi(&mut self) -> bool {
        self.0[0].lpis.as_mut().is_some_and(|lpis| lpis.highest(Priority::IDLE).is_some())
    }

    /// `ICH_HCR_EL2`: which exits are needed.
    fn control(&self, Left { pending, active, held_back }: Left) -> Hcr {
        let [vcpu] = &*self.0;
        let [zero, one] = [Group::Zero, Group::One].map(|group| vcpu.interface.takes(group));
        let traps_dir = vcpu.list_registers.traps_dir;
        let deactivates = active || vcpu.interface.splits_eoi();
        let one_of_n = vcpu.gic.config().one_of_n;
        Hcr::new()
            .with_en(true)
            .with_npie(pending)
            .with_lrenpie(active)
            .with_tdir(traps_dir)
            .with_tc(deactivates && !traps_dir)
            .with_vgrp0_eie(held_back[0] || (one_of_n && !zero))
            .with_vgrp1_eie(held_back[1] || (one_of_n && !one))
            .with_vgrp0_die(zero && (pending || one_of_n))
            .with_vgrp1_die(one && (pending || one_of_n))
    }
}

fn wired_register(seen: Seen, Filled { state, physical }: Filled) -> ListRegister {
    let Seen { index, state: word } = seen;
    let register = ListRegister::new()
        .with_virtual_intid(index.intid().get())
        .with_priority_value(word.priority_value())
        .with_group1(word.group1())
        .with_state(state);
    match physical.and_then(|physical| u16::try_from(physical.get()).ok()) {
        Some(physical) => register.with_hw(true).with_physical_intid(physical),
        None => register.with_eoi(asks_for_end(index, word)),
    }
}

fn lpi_register(lpi: ListedLpi) -> (Listed, ListRegister) {
    let register = ListRegister::new()
        .with_virtual_intid(lpi.ready.lpi.get())
        .with_priority_value(lpi.ready.priority.get())
        .with_group1(true)
        .with_state(ListRegisterState::Pending);
    (Listed::Lpi(lpi), register)
}
