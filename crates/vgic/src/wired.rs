//! Per-interrupt state, routing and vCPU notification for SGIs, PPIs and SPIs.
//!
//! Only route changes take a lock. Every change stores the interrupt's word first, then sets the
//! target's candidate bit, then reads the target's wake-up state. A vCPU performs these accesses in
//! the opposite order.
//!
//! [`Wired`] combines parts that don't depend on each other: the words of the interrupts
//! (`interrupt_table`), the PEs among which 1-of-N interrupts are distributed (`pes`), the vCPUs by
//! affinity (`affinities`), the routes (`routes`), and the links to physical interrupts (`links`).

mod affinities;
pub(crate) mod candidates;
pub(crate) mod index;
pub(crate) mod interrupt;
mod interrupt_table;
mod links;
mod listing;
mod pes;
mod routes;
mod saved;
mod sgi;

pub(crate) use interrupt_table::Bank;
pub use links::{LinkError, PhysicalInterrupts};
pub(crate) use listing::{Filled, Forwarding};
pub(crate) use pes::{Private, PublishedInterface, participation};
pub(crate) use sgi::send_sgi;

use crate::config::{VgicConfig, cpu};
use crate::sync::set_once::SetOnce;
use crate::sync::{AtomicU32, Ordering::SeqCst};
use crate::wakeup::{Awaited, VcpuWakeup};
use affinities::Affinities;
use alloc::sync::Arc;
use candidates::Look;
use doorbell_fallible::OutOfMemory;
use gic_arch::gicd::Irouter;
use gic_arch::{IntId, IntIdClass};
use index::WiredIndex;
use interrupt::InterruptWord;
use interrupt_table::{InterruptTable, reset_state};
use links::PhysicalLinks;
use msi_types::explain::Group;
use msi_types::{Cpu, Delivery, Level, Line, LineObserver};
use routes::{RouteRegisters, route_of};

/// Maximum number of attempts to choose a PE for a 1-of-N interrupt while chosen PEs withdraw
/// concurrently. After the last attempt, the withdrawing PE finds and redistributes the interrupt
/// itself.
const ATTEMPTS: usize = 4;

/// All wired interrupts on a machine.
pub(crate) struct Wired {
    interrupts: InterruptTable,
    affinities: Affinities,
    routes: RouteRegisters,
    links: PhysicalLinks,
    /// `EnableGrp0` (bit 0) and `EnableGrp1` (bit 1), and `E1NWF` (bit 7).
    control: AtomicU32,
    wakeup: Arc<VcpuWakeup>,
    /// Recalls caused by distributor register writes.
    awaited: Awaited,
    observer: SetOnce<Arc<dyn LineObserver>>,
    /// INTID of the last pulse that a level-sensitive input ignored, or 0.
    lost_pulse: AtomicU32,
}

impl Wired {
    pub(crate) fn new(config: &VgicConfig, wakeup: Arc<VcpuWakeup>) -> Result<Self, OutOfMemory> {
        let interrupts = InterruptTable::new(config)?;
        let wired = Self {
            affinities: Affinities::new(config)?,
            routes: RouteRegisters::new(interrupts.shared_count(), config.one_of_n)?,
            interrupts,
            links: PhysicalLinks::new(),
            control: AtomicU32::new(0),
            wakeup,
            awaited: Awaited::new(),
            observer: SetOnce::new(),
            lost_pulse: AtomicU32::new(0),
        };
        wired.reset(config);
        Ok(wired)
    }

    /// Resets all interrupts. Lines keep their driven levels, and links to physical interrupts
    /// remain. We don't notify vCPUs, because no group is enabled and no vCPU is running.
    pub(crate) fn reset(&self, config: &VgicConfig) {
        self.control.store(0, SeqCst);
        let mut routes = self.routes.lock();
        routes.reset();
        self.reset_bank(config, Bank::Shared);
        drop(routes);
        for (index, private) in self.privates().iter().enumerate() {
            self.reset_bank(config, Bank::Private(cpu(index)));
            let awake = if config.resets_awake() { participation::AWAKE } else { 0 };
            private.participation.store(awake, SeqCst);
        }
    }

    fn reset_bank(&self, config: &VgicConfig, bank: Bank) {
        let target = bank.target_after_reset(self.affinities.resolve(Irouter::new()));
        for index in self.interrupts.indices(bank) {
            if let Some(interrupt) = self.interrupts.get(bank.owner(), index) {
                let (old, new) =
                    interrupt.update(|state| reset_state(config, index, state, target));
                self.links.released(|| index.line(bank.owner()), old, new);
            }
        }
    }

    /// Sets the observer that is called when interrupts end. Must be called at most once.
    pub(crate) fn observe(
        &self,
        observer: Arc<dyn LineObserver>,
    ) -> Result<(), Arc<dyn LineObserver>> {
        self.observer.set(observer)
    }

    /// Returns the vCPU's private part, or `None` if the machine doesn't have that vCPU.
    #[inline]
    pub(crate) fn private(&self, cpu: Cpu) -> Option<&Private> {
        self.interrupts.pes.get(cpu)
    }

    /// Returns the vCPUs' private parts, by number.
    pub(crate) fn privates(&self) -> &[Arc<Private>] {
        self.interrupts.pes.all()
    }

    /// Returns the state of an interrupt that the guest can see, or `None` if the guest cannot see
    /// the interrupt.
    pub(crate) fn visible(&self, cpu: Cpu, intid: IntId) -> Option<InterruptWord> {
        self.interrupts.visible(cpu, intid)
    }

    /// Returns the state of the interrupt at `index`, visible to the guest or not.
    pub(crate) fn state(&self, cpu: Cpu, index: WiredIndex) -> InterruptWord {
        self.interrupts.state(cpu, index)
    }

    /// Returns the state of an interrupt that is ready to be signaled to `cpu`. Must be called on
    /// that vCPU's thread.
    #[inline]
    pub(crate) fn state_to_signal(&self, cpu: Cpu, index: WiredIndex) -> InterruptWord {
        let state_of = |interrupt| self.links.state_to_signal(cpu, index, interrupt);
        self.interrupts.get(cpu, index).map_or(InterruptWord::new(), state_of)
    }

    /// Returns `true` for a 1-of-N interrupt that isn't active, and is pending without a PE, or at
    /// a PE that doesn't participate.
    pub(crate) fn is_misplaced(&self, state: InterruptWord) -> bool {
        self.interrupts.pes.is_misplaced(state)
    }

    /// Returns a bit for each of 32 interrupts, starting with `first`. The bit is set if the guest
    /// can see the interrupt, and its state has this flag. `first` must be the first interrupt of a
    /// register with one bit per interrupt.
    pub(crate) fn bits(&self, cpu: Cpu, first: IntId, flag: InterruptWord) -> u32 {
        self.interrupts.bits(cpu, first, flag)
    }

    /// Returns the bits of the pending interrupts like [`bits`](Self::bits), as `ISPENDR` reads
    /// them.
    pub(crate) fn pending_bits(&self, cpu: Cpu, first: IntId) -> u32 {
        self.links.pending_bits(&self.interrupts, cpu, first)
    }

    /// Changes an interrupt that the guest can see, on behalf of a register write. Returns `false`
    /// if the machine does not implement the interrupt.
    pub(crate) fn change(
        &self,
        cpu: Cpu,
        intid: IntId,
        change: impl Fn(InterruptWord) -> InterruptWord,
    ) -> bool {
        let Some(index) = self.interrupts.index(intid) else { return false };
        let changed = self.try_change_at(cpu, index, |state| {
            self.interrupts.is_visible(state).then(|| change(state))
        });
        if let Some((old, new)) = changed {
            self.recall_changed(intid, old, new);
        }
        true
    }

    /// Changes a shared interrupt that the guest can see, on behalf of a message. Returns `Pending`
    /// if the interrupt is pending afterwards.
    pub(crate) fn signal(
        &self,
        intid: IntId,
        change: impl Fn(InterruptWord) -> InterruptWord,
    ) -> Delivery {
        let changed = self.try_change(Cpu::new(0), intid, |state| {
            self.interrupts.is_visible(state).then(|| change(state))
        });
        match changed {
            Some((_, state)) if state.pending() => Delivery::Pending,
            _ => Delivery::Blocked,
        }
    }

    /// Changes an interrupt, and notifies its target if necessary. Returns `None` if the interrupt
    /// does not exist or if `change` returns `None`.
    fn try_change(
        &self,
        cpu: Cpu,
        intid: IntId,
        change: impl Fn(InterruptWord) -> Option<InterruptWord>,
    ) -> Option<(InterruptWord, InterruptWord)> {
        self.try_change_at(cpu, self.interrupts.index(intid)?, change)
    }

    /// Changes the interrupt at `index` like [`try_change`](Self::try_change).
    #[inline]
    fn try_change_at(
        &self,
        cpu: Cpu,
        index: WiredIndex,
        change: impl Fn(InterruptWord) -> Option<InterruptWord>,
    ) -> Option<(InterruptWord, InterruptWord)> {
        let aim = |state, new: InterruptWord| self.interrupts.pes.aim(state, new.released());
        let (old, new) = self
            .interrupts
            .get(cpu, index)?
            .try_update(|state| change(state).map(|new| aim(state, new)))?;
        self.links.released(|| index.line(cpu), old, new);
        self.settle(index, new);
        self.refresh_listed(old, new);
        Some((old, new))
    }

    /// Notifies the target if the interrupt is ready. Must be called after storing `state`.
    #[inline]
    fn settle(&self, index: WiredIndex, state: InterruptWord) {
        let state = if state.any() { self.settle_any(index, state) } else { state };
        if state.ready() {
            self.notify_target(index, state);
        }
    }

    /// Notifies the target of an interrupt that is ready.
    #[inline(never)]
    fn notify_target(&self, index: WiredIndex, state: InterruptWord) {
        if let Some(target) = state.target()
            && let Some(private) = self.private(target)
        {
            self.notify(target, private, index, state.group());
        }
    }

    /// Chooses another PE while the PE chosen for a pending 1-of-N interrupt no longer
    /// participates.
    #[inline(never)]
    fn settle_any(&self, index: WiredIndex, mut state: InterruptWord) -> InterruptWord {
        let Some(interrupt) = self.interrupts.shared(index) else { return state };
        let pes = &self.interrupts.pes;
        for _ in 0..ATTEMPTS {
            if !pes.is_misplaced(state) {
                break;
            }
            let (old, new) = interrupt.update(|now| {
                if pes.is_misplaced(now) { now.with_target_index(pes.choose(now)) } else { now }
            });
            self.recall_changed(index.intid(), old, new);
            state = new;
            if state.target().is_none() {
                break;
            }
        }
        state
    }

    /// Changes which interrupts a PE accepts, by setting and clearing bits of [`participation`].
    /// Redistributes interrupts that were assigned to this PE or that have no PE.
    pub(crate) fn set_participation(&self, cpu: Cpu, set: u32, clear: u32) {
        let Some(private) = self.private(cpu).filter(|private| private.participate(set, clear))
        else {
            return;
        };
        if self.routes.one_of_n {
            for index in self.interrupts.indices(Bank::Shared) {
                let state = self.state(cpu, index);
                if self.interrupts.pes.is_misplaced(state) {
                    self.settle(index, state);
                }
            }
        }
        if self.wakeup.recall(cpu) {
            private.awaited.ask();
        }
        self.wakeup.kick(cpu);
    }

    /// Returns `GICD_IROUTER<n>`; 0 for an interrupt that the guest cannot see.
    pub(crate) fn route(&self, intid: IntId) -> Irouter {
        let routes = self.routes.lock();
        let stored = || {
            let state = self.visible(Cpu::new(0), intid)?;
            Some(route_of(routes.get(WiredIndex::of(intid)?)?, state))
        };
        stored().unwrap_or_default()
    }

    /// Writes `GICD_IROUTER<n>`; `change` computes the new value from the old one.
    pub(crate) fn set_route(&self, intid: IntId, change: impl Fn(u64) -> u64) {
        if self.visible(Cpu::new(0), intid).is_none() {
            return;
        }
        let Some(index) = self.interrupts.index(intid) else { return };
        let mut routes = self.routes.lock();
        let Some((stored, interrupt)) = routes.get(index).zip(self.interrupts.shared(index)) else {
            return;
        };
        let old = route_of(stored, interrupt.state());
        let route = self.routes.valid(Irouter::from(change(old.into_bits())));
        routes.set(index, route.affinity());
        let target = self.affinities.resolve(route);
        let (old, new) = interrupt.update(|state| {
            let aimed = state.with_any(route.any_participating()).with_target_index(target);
            self.interrupts.pes.aim(state, aimed)
        });
        drop(routes);
        self.settle(index, new);
        self.recall_changed(intid, old, new);
    }

    /// Sets the hypervisor's implementation of links to physical interrupts. Must be called at most
    /// once.
    pub(crate) fn serve_physical(
        &self,
        physical: Arc<dyn PhysicalInterrupts>,
    ) -> Result<(), Arc<dyn PhysicalInterrupts>> {
        self.links.serve(physical)
    }

    /// Links a line to a physical interrupt, or removes its link.
    pub(crate) fn link(&self, line: Line, physical: Option<IntId>) -> Result<(), LinkError> {
        let (cpu, index) = self.interrupts.input(line).ok_or(LinkError::NoSuchLine(line))?;
        let interrupt = self.interrupts.get(cpu, index).ok_or(LinkError::NoSuchLine(line))?;
        let (old, new) = self.links.link(line, interrupt, physical)?;
        if let Some(taker) = old.taker().filter(|_| old.listed() && old != new) {
            self.recall(index.intid(), taker);
        }
        Ok(())
    }

    /// Returns `true` if the interrupt's linked physical interrupt is held active. The interrupt
    /// must not be in a list register.
    pub(crate) fn is_physical_active(&self, line: Line) -> bool {
        let Some((cpu, index)) = self.interrupts.input(line) else { return false };
        self.state(cpu, index).physical_active()
    }

    /// Notifies `target` that an interrupt in `group` is ready there. `private` is the target's
    /// private part.
    #[inline]
    fn notify(&self, target: Cpu, private: &Private, index: WiredIndex, group: Group) {
        private.candidates.set(index);
        if self.forwards(group) {
            self.wakeup.kick(target);
        }
    }

    /// Drives a wired input. Returns `None` if the input does not exist.
    pub(crate) fn drive(&self, line: Line, level: Level) -> Option<InterruptWord> {
        self.change_input(line, |state| state.driven(level))
    }

    /// Latches an edge on a wired input. Returns `None` if the input does not exist.
    pub(crate) fn pulse(&self, line: Line) -> Option<InterruptWord> {
        let state = self.change_input(line, InterruptWord::pulsed);
        if state.is_some_and(|state| !state.pending()) {
            self.note_lost_pulse(line);
        }
        state
    }

    #[cold]
    #[inline(never)]
    fn note_lost_pulse(&self, line: Line) {
        let (Line::Spi(intid) | Line::Ppi { intid, .. }) = line;
        self.lost_pulse.store(intid, SeqCst);
    }

    /// Returns the input whose pulse was lost last, because it is level-sensitive.
    pub(crate) fn lost_pulse(&self) -> Option<IntId> {
        Some(self.lost_pulse.load(SeqCst)).filter(|intid| *intid != 0).map(IntId::new)
    }

    /// Changes a wired input's interrupt. Returns `None` if the input does not exist.
    pub(crate) fn change_input(
        &self,
        line: Line,
        change: impl Fn(InterruptWord) -> InterruptWord,
    ) -> Option<InterruptWord> {
        let (cpu, index) = self.interrupts.input(line)?;
        self.try_change(cpu, index.intid(), |state| Some(change(state))).map(|(_, new)| new)
    }

    /// Returns `true` if `GICD_CTLR` enables the group.
    pub(crate) fn forwards(&self, group: Group) -> bool {
        self.control() & (1 << group as usize) != 0
    }

    /// Returns `true` if a vCPU with list registers hasn't yet observed a change made by the guest
    /// through the distributor.
    pub(crate) fn awaits_folding(&self) -> bool {
        self.awaited.is_outstanding(&self.wakeup)
    }

    /// Returns `true` if a vCPU with list registers hasn't yet observed a change counted by
    /// `awaited`.
    pub(crate) fn is_outstanding(&self, awaited: &Awaited) -> bool {
        awaited.is_outstanding(&self.wakeup)
    }

    /// Returns `true` if a change counted by `awaited` is still in progress, or a vCPU with list
    /// registers hasn't yet observed it (see [`Awaited::is_outstanding_after`]).
    pub(crate) fn is_outstanding_after(
        &self,
        in_progress: impl FnOnce() -> bool,
        awaited: &Awaited,
    ) -> bool {
        awaited.is_outstanding_after(in_progress, &self.wakeup)
    }

    /// Returns the `GICD_CTLR` bits that [`set_control`](Self::set_control) stored.
    pub(crate) fn control(&self) -> u32 {
        self.control.load(SeqCst)
    }

    /// Stores `EnableGrp0`, `EnableGrp1` and `E1NWF`. After a change, vCPUs must check pending
    /// interrupts again, because injectors didn't wake them for disabled groups.
    pub(crate) fn set_control(&self, change: impl Fn(u32) -> u32) {
        let changed = |old| Some(change(old)).filter(|new| *new != old);
        if self.control.fetch_update(SeqCst, SeqCst, changed).is_err() {
            return;
        }
        for index in 0..self.privates().len() {
            let _ = self.wakeup.recall(cpu(index));
            self.wakeup.kick(cpu(index));
        }
        self.awaited.ask();
    }

    /// Visits the candidates of `cpu` that are ready there, with their states. Must be called on
    /// the vCPU's own thread.
    pub(crate) fn ready(&self, cpu: Cpu, mut each: impl FnMut(WiredIndex, InterruptWord)) {
        let Some(private) = self.private(cpu) else { return };
        private.candidates.visit(|index| {
            let state = self.state_to_signal(cpu, index);
            if state.ready_at(cpu) {
                each(index, state);
                Look::Ready
            } else {
                Look::Stale
            }
        });
    }

    /// Acknowledges the interrupt at `index` for `cpu` if its state is still `expected`, which must
    /// be ready there. Returns the new state, or `None` if the state has changed.
    #[inline]
    pub(crate) fn acknowledge(
        &self,
        cpu: Cpu,
        index: WiredIndex,
        expected: InterruptWord,
    ) -> Option<InterruptWord> {
        let acknowledged = expected.acknowledged().with_taker(cpu);
        let interrupt = self.interrupts.get(cpu, index)?;
        interrupt.replace(expected, acknowledged).then_some(acknowledged)
    }

    /// Fast path of [`deactivate`](Self::deactivate): deactivates the interrupt at `index` if its
    /// state is still `active`. Returns `false` if it is not, or if anything else remains to be
    /// done.
    #[inline]
    pub(crate) fn end_silently(&self, cpu: Cpu, index: WiredIndex, active: InterruptWord) -> bool {
        active.ends_silently()
            && self
                .interrupts
                .get(cpu, index)
                .is_some_and(|interrupt| interrupt.replace(active, active.deactivated()))
    }

    /// Deactivates an interrupt that the guest has finished, by EOI, DIR or `ICACTIVER`. Calls the
    /// observer before signaling a level that is still high, so that a device that no longer needs
    /// service can lower the line first.
    pub(crate) fn deactivate(&self, cpu: Cpu, intid: IntId) {
        let Some(index) = self.interrupts.index(intid) else { return };
        let Some(interrupt) = self.interrupts.get(cpu, index) else { return };
        let done = interrupt.try_update(|state| {
            let done = (state.active() || state.listed()) && self.interrupts.is_visible(state);
            done.then(|| self.interrupts.pes.aim(state, state.deactivated()))
        });
        let Some((old, new)) = done else { return };
        self.links.released(|| index.line(cpu), old, new);
        if old.active() && !old.physical_active() {
            self.tell_observer_of(cpu, intid, old);
        }
        self.settle(index, interrupt.state());
        self.recall_changed(intid, old, new);
    }

    fn tell_observer_of(&self, cpu: Cpu, intid: IntId, state: InterruptWord) {
        if !state.edge()
            && intid.class() != IntIdClass::Sgi
            && let Some((observer, index)) = self.observer.get().zip(WiredIndex::of(intid))
        {
            observer.deactivated(index.line(cpu));
        }
    }
}
