//! Fills the list registers before a guest entry.

#![expect(clippy::inline_always, reason = "keeps the fast path of a guest entry free of calls")]

use super::ListRegisterVcpu;
use super::rank::{Ranked, Seen};
use crate::cpu::listed::{ListRegisters, Listed, MAX_LIST_REGISTERS, Unlisted};
use crate::cpu::vcpu::Vcpu;
use crate::lpi::{PendingLpis, ReadyLpi};
use crate::wired::{Filled, Forwarding};
use core::ops::ControlFlow;
use gic_arch::Priority;
use gic_arch::ich::{Hcr, ListRegister, ListRegisterState};
use msi_types::explain::Group;

/// Wired interrupts that need a list register.
struct Waiting {
    pending: Ranked,
    active: Ranked,
}

/// Forwarding state, indexed by group.
#[derive(Clone, Copy)]
struct GroupForwarding {
    /// `true` if the distributor and the redistributor forward the group.
    distributed: [bool; 2],
    /// `true` if the guest has also enabled the group.
    forwarded: [bool; 2],
}

impl ListRegisterVcpu {
    /// Returns `true` if the vCPU has been idle since an entry with empty list registers, and
    /// wasn't kicked. In that case, no interrupt can have arrived.
    #[inline]
    pub(super) fn is_left_alone(&self) -> bool {
        let Vcpu { wakeup, own, .. } = &self.0;
        wakeup.leaves_alone(&own.wakeup)
    }

    /// Declares that the vCPU is entering the guest, then checks for interrupts that arrived since
    /// the last entry.
    #[inline(never)]
    pub(super) fn leave(&mut self) {
        let Self(vcpu) = self;
        if vcpu.own.wakeup.is_idle() {
            vcpu.own.wakeup.leave();
            if !vcpu.wakeup.has_work() && vcpu.has_nothing() {
                return;
            }
        }
        self.prepare();
    }

    /// Does one piece of the work that register accesses deferred, and computes the interface state
    /// to load. If work remains, kicks the vCPU immediately.
    fn prepare(&mut self) {
        let vcpu = self.outside();
        vcpu.own.wakeup.enter();
        vcpu.gic.go_on();
        let left = self.fill();
        if self.lists().made_for != Some(left) {
            self.make_control(left);
        }
        let Vcpu { own, lpis, list_registers: lists, .. } = &mut self.0;
        let is_empty = lists.used == 0 && lists.active.is_empty() && left == Unlisted::default();
        if is_empty
            && own.wakeup.took_nothing()
            && let Some(lpis) = lpis
        {
            lpis.prune();
        }
        self.0.exit_for_work();
    }

    /// Fills the empty list registers without an exit. Returns `false` if the vCPU must exit
    /// because other interface registers would have to change; the list registers are then empty.
    /// If work remains, kicks the vCPU immediately.
    pub(super) fn fill_again(&mut self) -> bool {
        let is_done = self.lists().active.is_empty() && self.fill() == Unlisted::default();
        if !is_done {
            self.fold_as_filled();
        }
        self.0.exit_for_work();
        is_done
    }

    /// Computes all interface registers except the list registers.
    #[inline(never)]
    fn make_control(&mut self, left: Unlisted) {
        let hcr = self.control(left);
        let Vcpu { interface, list_registers: lists, .. } = &mut self.0;
        lists.interface.hcr = hcr;
        lists.interface.vmcr = interface.vmcr();
        lists.interface.active_priorities = interface.active_priorities();
        lists.made_for = Some(left);
    }

    /// Fills the list registers. Returns a summary of the interrupts that didn't fit.
    #[inline(always)]
    fn fill(&mut self) -> Unlisted {
        if self.has_wired() { self.fill_with_wired() } else { self.fill_with_lpis() }
    }

    /// Fills the list registers if no wired interrupt is pending or active.
    #[inline(always)]
    fn fill_with_lpis(&mut self) -> Unlisted {
        let Self(vcpu) = self;
        if !vcpu.is_distributed(Group::One) {
            return Unlisted::default();
        }
        if !vcpu.interface.takes(Group::One) {
            return Unlisted::held_back(Group::One, self.has_lpi());
        }
        self.list_all_lpis();
        Unlisted::pending(self.lists().is_full() && self.has_lpi())
    }

    #[inline(never)]
    fn fill_with_wired(&mut self) -> Unlisted {
        let groups = self.groups();
        if self.list_only(groups) {
            return Unlisted::default();
        }
        let left = self.fill_ranked(groups);
        let one = Group::One as usize;
        if groups.forwarded[one] {
            left | Unlisted::pending(self.lists().is_full() && self.has_lpi())
        } else {
            left | Unlisted::held_back(Group::One, groups.distributed[one] && self.has_lpi())
        }
    }

    fn groups(&self) -> GroupForwarding {
        let Self(vcpu) = self;
        let distributed = vcpu.distributed();
        let takes = [Group::Zero, Group::One].map(|group| vcpu.interface.takes(group));
        GroupForwarding {
            distributed,
            forwarded: [distributed[0] && takes[0], distributed[1] && takes[1]],
        }
    }

    /// Fast path: puts a single wired interrupt into a list register if no other interrupt needs to
    /// be checked. Returns `false` if others need to be checked, or if the interrupt can't be in a
    /// list register.
    fn list_only(&mut self, groups: GroupForwarding) -> bool {
        let Vcpu { cpu, gic, own, lpis, list_registers: lists, .. } = &self.0;
        if !lists.active.is_empty() || !lpis.as_ref().is_none_or(PendingLpis::is_empty) {
            return false;
        }
        let Some(index) = own.private.candidates.take_only() else { return false };
        let state = gic.wired().state_to_signal(*cpu, index);
        let may_list = state.ready_at(*cpu) && groups.forwarded[state.group() as usize];
        if may_list && self.list_wired(groups, Seen { index, state }) {
            return true;
        }
        self.0.own.private.candidates.set(index);
        false
    }

    /// Returns `true` if a wired interrupt may be pending or active at this vCPU, whether or not
    /// its group is forwarded. The result may be a false positive.
    fn has_wired(&self) -> bool {
        let Self(vcpu) = self;
        !vcpu.list_registers.active.is_empty() || !vcpu.own.private.candidates.is_empty()
    }

    /// Fills the list registers from both LPIs and wired interrupts, in priority order.
    fn fill_ranked(&mut self, groups: GroupForwarding) -> Unlisted {
        let mut waiting = Waiting { pending: Ranked::new(), active: Ranked::new() };
        let held_back = self.gather(groups, &mut waiting);
        let _ = self.list_pending(groups, &mut waiting.pending);
        while self.list_active(groups, &mut waiting.active) {}
        while self.list_pending(groups, &mut waiting.pending) {}
        let left = Unlisted::pending(waiting.pending.any_left());
        held_back | left | Unlisted::active(waiting.active.any_left())
    }

    /// Collects wired interrupts. Returns the groups that pending interrupts are waiting for the
    /// guest to enable.
    fn gather(&mut self, groups: GroupForwarding, waiting: &mut Waiting) -> Unlisted {
        let Vcpu { cpu, gic, list_registers: lists, .. } = &mut self.0;
        let (cpu, wired) = (*cpu, gic.wired());
        let mut held_back = Unlisted::default();
        wired.listable(cpu, |index, state| {
            let group = state.group();
            if state.active() {
                lists.active.insert(index);
            } else if groups.forwarded[group as usize] {
                waiting.pending.insert(Seen { index, state });
            } else {
                let waits = groups.distributed[group as usize];
                held_back = held_back | Unlisted::held_back(group, waits);
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

    /// Puts the highest-priority pending interrupt into a list register. Returns `false` if no list
    /// register is free or no interrupt is left.
    fn list_pending(&mut self, groups: GroupForwarding, pending: &mut Ranked) -> bool {
        while !self.lists().is_full() {
            let first = pending.first();
            let than = first.map_or(Priority::IDLE, |seen| seen.state.priority());
            if groups.forwarded[Group::One as usize] && self.list_lpis(than, 1) {
                return true;
            }
            let Some(seen) = pending.pop() else { return false };
            if self.list_wired(groups, seen) {
                return true;
            }
        }
        false
    }

    /// Puts the highest-priority active interrupt into a list register. Returns `false` if no list
    /// register is free or no interrupt is left.
    fn list_active(&mut self, groups: GroupForwarding, active: &mut Ranked) -> bool {
        while !self.lists().is_full() {
            let Some(seen) = active.pop() else { return false };
            if self.list_wired(groups, seen) {
                return true;
            }
        }
        false
    }

    /// Puts as many LPIs into list registers as fit, highest priority first. At least one list
    /// register must be free.
    #[inline(never)]
    fn list_all_lpis(&mut self) {
        let Vcpu { lpis, list_registers: lists, .. } = &mut self.0;
        let Some(lpis) = lpis else { return };
        let listed =
            lpis.list_first(|ready, listed| lists.push(Listed::Lpi(listed), lpi_register(ready)));
        if listed.is_continue() {
            self.list_lpis(Priority::IDLE, MAX_LIST_REGISTERS);
        }
    }

    /// Puts up to `most` LPIs whose priority is higher than `than` into list registers, highest
    /// priority first. Returns `false` if no list register is free or no LPI is left.
    #[inline(never)]
    fn list_lpis(&mut self, than: Priority, most: usize) -> bool {
        let Vcpu { lpis, list_registers: lists, .. } = &mut self.0;
        let (before, count) = (lists.used, lists.count);
        let Some(lpis) = lpis.as_mut().filter(|_| before < count) else { return false };
        let end = count.min(before + most);
        lpis.list(than, |ready, listed| {
            let _ = lists.push(Listed::Lpi(listed), lpi_register(ready));
            if lists.used < end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        lists.used > before
    }

    /// Puts a wired interrupt into a list register, unless its state has changed since it was
    /// sampled.
    fn list_wired(&mut self, groups: GroupForwarding, seen: Seen) -> bool {
        let Vcpu { cpu, gic, list_registers: lists, .. } = &mut self.0;
        let distributed = groups.distributed[seen.state.group() as usize];
        let forwarding = if distributed { Forwarding::Enabled } else { Forwarding::Disabled };
        let filled = gic.wired().list(*cpu, seen.index, seen.state, forwarding);
        let Some(filled) = filled else { return false };
        let _ = lists.push(Listed::Wired(seen.index, filled), wired_register(seen, filled));
        true
    }

    /// Returns `true` if an LPI is pending.
    fn has_lpi(&mut self) -> bool {
        self.0.lpis.as_mut().is_some_and(|lpis| lpis.highest(Priority::IDLE).is_some())
    }

    fn lists(&self) -> &ListRegisters {
        &self.0.list_registers
    }

    /// Computes `ICH_HCR_EL2`, which enables the exits that we need.
    fn control(&self, left: Unlisted) -> Hcr {
        let Self(vcpu) = self;
        let (pending, active) =
            (left.has(Unlisted::pending(true)), left.has(Unlisted::active(true)));
        let held_back = |group| left.has(Unlisted::held_back(group, true));
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
            .with_vgrp0_eie(held_back(Group::Zero) || (one_of_n && !zero))
            .with_vgrp1_eie(held_back(Group::One) || (one_of_n && !one))
            .with_vgrp0_die(zero && (pending || one_of_n))
            .with_vgrp1_die(one && (pending || one_of_n))
    }
}

pub(super) fn wired_register(seen: Seen, filled: Filled) -> ListRegister {
    let Filled { state, physical, asks_for_end } = filled;
    let Seen { index, state: word } = seen;
    let register = ListRegister::new()
        .with_virtual_intid(index.intid().get())
        .with_priority_value(word.priority_value())
        .with_group1(word.group1())
        .with_state(state);
    match physical.and_then(|physical| u16::try_from(physical.get()).ok()) {
        Some(physical) => register.with_hw(true).with_physical_intid(physical),
        None => register.with_eoi(asks_for_end),
    }
}

pub(super) fn lpi_register(ready: ReadyLpi) -> ListRegister {
    const PENDING: ListRegister =
        ListRegister::new().with_group1(true).with_state(ListRegisterState::Pending);
    // Each setter would be a call, for each LPI.
    const INTID: u64 = ListRegister::new().with_virtual_intid(1).into_bits();
    const PRIORITY: u64 = ListRegister::new().with_priority_value(1).into_bits();
    let (intid, priority) = (u64::from(ready.lpi.get()), u64::from(ready.priority.get()));
    ListRegister::from_bits(PENDING.into_bits() | (intid * INTID) | (priority * PRIORITY))
}
