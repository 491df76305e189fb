//! Before the guest is entered: which interrupts get a list register.

use super::ListRegisterVcpu;
use super::rank::{Ranked, Seen};
use crate::listed::{ListRegisters, Listed};
use crate::lpi::{PendingLpis, ReadyLpi};
use crate::vcpu::Vcpu;
use crate::wired::{Filled, Forwarding, Group, asks_for_end};
use gic_arch::Priority;
use gic_arch::ich::{Hcr, ListRegister, ListRegisterState};

/// Wired interrupts that wait for a list register.
struct Waiting {
    pending: Ranked,
    active: Ranked,
}

/// Groups whose pending interrupts may be signalled, by index.
#[derive(Clone, Copy)]
struct Groups {
    /// The distributor and the redistributor forward them.
    distributed: [bool; 2],
    /// The guest has enabled them, too.
    forwarded: [bool; 2],
}

/// Interrupts that got no list register.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Left {
    pending: bool,
    active: bool,
    /// By group: something is pending that only the guest's own enable keeps from being signalled.
    held_back: [bool; 2],
}

impl ListRegisterVcpu {
    /// Did the vCPU stay left since an entry that took nothing, and was it not kicked? Nothing has
    /// arrived then.
    #[inline]
    pub(super) fn is_left_alone(&self) -> bool {
        let [Vcpu { cpu, wakeup, list_registers, .. }] = &*self.0;
        list_registers.is_idle && wakeup.is_left_alone(*cpu)
    }

    /// Leaves for the guest, then looks for what came since the last entry.
    #[inline(never)]
    pub(super) fn leave(mut self) -> Self {
        let [Vcpu { cpu, wakeup, list_registers, .. }] = &*self.0;
        if list_registers.is_idle {
            wakeup.leave(*cpu);
        }
        if !self.is_unchanged() {
            self.prepare();
        }
        self
    }

    /// Has nothing changed since an entry that left the list registers empty? A load for each
    /// source of change.
    fn is_unchanged(&self) -> bool {
        let [Vcpu { cpu, gic, wakeup, lpis, list_registers, .. }] = &*self.0;
        list_registers.is_idle
            && !wakeup.has_work()
            && gic.wired().private(*cpu).is_none_or(|private| private.candidates.is_empty())
            && lpis.as_ref().is_none_or(PendingLpis::is_empty)
    }

    /// Does a piece of what is left over, and makes the interface that is to be loaded. While more
    /// is left over, the vCPU is kicked at once.
    fn prepare(&mut self) {
        let [vcpu] = &*self.0;
        vcpu.wakeup.enter(vcpu.cpu);
        vcpu.gic.go_on();
        let left = self.fill();
        let hcr = self.control(left);
        let [Vcpu { cpu, wakeup, interface, lpis, list_registers: lists, .. }] = &mut *self.0;
        lists.interface.hcr = hcr;
        lists.interface.vmcr = interface.vmcr();
        lists.interface.active_priorities = interface.active_priorities();
        let is_empty = lists.used == 0 && lists.active.is_empty() && left == Left::default();
        lists.is_idle = is_empty && wakeup.took_nothing(*cpu);
        if lists.is_idle
            && let Some(lpis) = lpis
        {
            lpis.prune();
        }
        self.0[0].exit_for_work();
    }

    /// Fills the list registers. Returns what got none.
    fn fill(&mut self) -> Left {
        let [vcpu] = &*self.0;
        let distributed = vcpu.distributed();
        let takes = [Group::Zero, Group::One].map(|group| vcpu.interface.takes(group));
        let forwarded = [distributed[0] && takes[0], distributed[1] && takes[1]];
        let groups = Groups { distributed, forwarded };
        let mut left = if self.has_wired() {
            self.fill_ranked(groups)
        } else {
            while self.list_lpi(groups, Priority::IDLE) {}
            Left::default()
        };
        let one = Group::One.index();
        left.pending |= forwarded[one] && self.lists().is_full() && self.has_lpi();
        left.held_back[one] |= distributed[one] && !forwarded[one] && self.has_lpi();
        left
    }

    /// Is a wired interrupt pending or active here, forwarded or not, or was one?
    fn has_wired(&self) -> bool {
        let [vcpu] = &*self.0;
        let private = vcpu.gic.wired().private(vcpu.cpu);
        !vcpu.list_registers.active.is_empty()
            || private.is_some_and(|private| !private.candidates.is_empty())
    }

    /// As [`fill`](Self::fill), where wired interrupts have to be looked at.
    #[inline(never)]
    fn fill_ranked(&mut self, groups: Groups) -> Left {
        let mut waiting = Waiting { pending: Ranked::new(), active: Ranked::new() };
        let held_back = self.gather(groups, &mut waiting);
        let _ = self.list_pending(groups, &mut waiting.pending);
        while self.list_active(groups, &mut waiting.active) {}
        while self.list_pending(groups, &mut waiting.pending) {}
        let (pending, active) = (waiting.pending.any_left(), waiting.active.any_left());
        Left { pending, active, held_back }
    }

    /// Gathers wired interrupts. Returns by group whether one is held back.
    fn gather(&mut self, groups: Groups, waiting: &mut Waiting) -> [bool; 2] {
        let [Vcpu { cpu, gic, list_registers: lists, .. }] = &mut *self.0;
        let (cpu, wired) = (*cpu, gic.wired());
        let mut held_back = [false; 2];
        wired.listable(cpu, |index, state| {
            let group = Group::of(state).index();
            if state.active() {
                lists.active.insert(index);
            } else if groups.forwarded[group] {
                waiting.pending.insert(Seen { index, state });
            } else {
                held_back[group] |= groups.distributed[group];
            }
        });
        lists.active.retain(|index| {
            let state = wired.state(cpu, index);
            if state.active_at(cpu) {
                waiting.active.insert(Seen { index, state });
            }
            state.active_at(cpu)
        });
        held_back
    }

    /// Lists the most urgent pending interrupt. `false`: there is no room, or none is left.
    fn list_pending(&mut self, groups: Groups, pending: &mut Ranked) -> bool {
        while !self.lists().is_full() {
            let first = pending.first();
            let than = first.map_or(Priority::IDLE, |seen| seen.state.priority());
            if self.list_lpi(groups, than) {
                return true;
            }
            let Some(seen) = pending.pop() else { return false };
            if self.list_wired(groups, seen) {
                return true;
            }
        }
        false
    }

    /// Lists the most urgent active interrupt. `false`: there is no room, or none is left.
    fn list_active(&mut self, groups: Groups, active: &mut Ranked) -> bool {
        while !self.lists().is_full() {
            let Some(seen) = active.pop() else { return false };
            if self.list_wired(groups, seen) {
                return true;
            }
        }
        false
    }

    /// Lists the most urgent LPI that is more urgent than `than`. `false`: there is no room, or
    /// none is left.
    fn list_lpi(&mut self, groups: Groups, than: Priority) -> bool {
        let [Vcpu { lpis, list_registers: lists, .. }] = &mut *self.0;
        let may_list = groups.forwarded[Group::One.index()] && !lists.is_full();
        let Some(lpis) = lpis.as_mut().filter(|_| may_list) else { return false };
        let Some((ready, listed)) = lpis.list(than) else { return false };
        lists.push(Listed::Lpi(listed), lpi_register(ready));
        true
    }

    /// Lists a wired interrupt, unless it has changed meanwhile.
    fn list_wired(&mut self, groups: Groups, seen: Seen) -> bool {
        let [Vcpu { cpu, gic, list_registers: lists, .. }] = &mut *self.0;
        let distributed = groups.distributed[Group::of(seen.state).index()];
        let forwarding = if distributed { Forwarding::Enabled } else { Forwarding::Disabled };
        let filled = gic.wired().list(*cpu, seen.index, seen.state, forwarding);
        let Some(filled) = filled else { return false };
        lists.push(Listed::Wired(seen.index, filled), wired_register(seen, filled));
        true
    }

    /// Is an LPI pending?
    fn has_lpi(&mut self) -> bool {
        self.0[0].lpis.as_mut().is_some_and(|lpis| lpis.highest(Priority::IDLE).is_some())
    }

    fn lists(&self) -> &ListRegisters {
        &self.0[0].list_registers
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

fn lpi_register(ready: ReadyLpi) -> ListRegister {
    const PENDING: ListRegister =
        ListRegister::new().with_group1(true).with_state(ListRegisterState::Pending);
    PENDING.with_virtual_intid(ready.lpi.get()).with_priority_value(ready.priority.get())
}
