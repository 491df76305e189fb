//! Per-interrupt state, routing and vCPU notification for SGIs, PPIs and SPIs.
//!
//! Only a change of routes takes a lock. Every change stores the interrupt's word first, then sets
//! the target's candidate bit, then reads the target's wake-up state. A vCPU reads them in the
//! opposite order.

pub(crate) mod candidates;
pub(crate) mod index;
pub(crate) mod interrupt;
mod links;
mod listing;
mod one_of_n;
mod routes;
mod saved;
mod sgi;

pub use links::{LinkError, PhysicalInterrupts};
pub(crate) use listing::{Filled, Forwarding, asks_for_end};
pub(crate) use saved::{Bank, RestoredInterrupt};

use crate::config::{SecurityView, VgicConfig, WiredIntIds, cpu};
use crate::sync::lock::Mutex;
use crate::sync::set_once::SetOnce;
use crate::sync::{AtomicU32, Ordering::SeqCst};
use crate::wakeup::{Awaited, VcpuWakeup};
use crate::wired::candidates::{Candidates, Look};
use crate::wired::index::WiredIndex;
use crate::wired::interrupt::{Interrupt, InterruptWord};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_arc, try_boxed_slice};
use gic_arch::gicd::Irouter;
use gic_arch::{Affinity, IntId, IntIdClass, Priority};
use msi_types::{Cpu, Delivery, Level, Line, LineObserver};

/// A group of interrupts: Group 0 is signalled as FIQ, Group 1 as IRQ. Of two security states, the
/// Non-secure side has Group 1 only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    /// Group 0.
    Zero,
    /// Group 1, Non-secure Group 1.
    One,
}

impl Group {
    /// The group that an interrupt is in.
    pub(crate) const fn of(state: InterruptWord) -> Self {
        if state.group1() { Self::One } else { Self::Zero }
    }

    /// Index into arrays of two.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// One PE's part. It is shared by a counted reference. The counts, which are seldom written, keep
/// it from the cache lines of the part before it.
#[repr(align(64))]
pub(crate) struct Private {
    affinity: Affinity,
    pub(crate) interrupts: [Interrupt; WiredIndex::PRIVATE],
    pub(crate) candidates: Candidates,
    /// Decides whether 1-of-N interrupts, or any at all, go to this PE: [`participation`].
    pub(crate) participation: AtomicU32,
    /// By writes to the redistributor's registers that concern no LPIs.
    pub(crate) awaited: Awaited,
}

impl Private {
    fn new(affinity: Affinity) -> Self {
        Self {
            affinity,
            interrupts: core::array::from_fn(|_| Interrupt::new(InterruptWord::new())),
            candidates: Candidates::new(),
            participation: AtomicU32::new(0),
            awaited: Awaited::new(),
        }
    }
}

/// Bits of [`Private::participation`].
pub(crate) mod participation {
    /// `GICR_WAKER.ProcessorSleep` is clear.
    pub(crate) const AWAKE: u32 = 1 << 0;
    /// The CPU interface takes the group: Group 0, Group 1.
    pub(crate) const GROUP: [u32; 2] = [1 << 1, 1 << 2];
    /// `GICR_CTLR.DPG0`, `DPG1NS`: the PE takes no 1-of-N interrupts of the group.
    pub(crate) const DECLINES: [u32; 2] = [1 << 3, 1 << 4];
    /// `GICR_CTLR.DPG1S`: kept for reading back only.
    pub(crate) const DECLINES_SECURE: u32 = 1 << 5;
}

/// All wired interrupts of a machine.
pub(crate) struct Wired {
    intids: WiredIntIds,
    security: SecurityView,
    one_of_n: bool,
    /// vCPUs by affinity, for routes.
    by_affinity: Box<[(Affinity, Cpu)]>,
    /// `EnableGrp0` (bit 0) and `EnableGrp1` (bit 1), and `E1NWF` (bit 7).
    control: AtomicU32,
    shared: Box<[Interrupt]>,
    /// The affinities of the routes as the guest wrote them; the interrupt's word says whether any
    /// PE may take it. Held while the word takes the target, so that two writers of one route
    /// cannot leave register and word apart.
    routes: Mutex<Box<[Affinity]>>,
    /// By vCPU. Each vCPU has its own at hand, too.
    cpus: Box<[Arc<Private>]>,
    wakeup: Arc<VcpuWakeup>,
    /// By writes to the distributor's registers.
    awaited: Awaited,
    observer: SetOnce<Arc<dyn LineObserver>>,
    physical: SetOnce<Arc<dyn PhysicalInterrupts>>,
}

impl Wired {
    pub(crate) fn new(config: &VgicConfig, wakeup: Arc<VcpuWakeup>) -> Result<Self, OutOfMemory> {
        let mut by_affinity = try_boxed_slice(
            config.cpus.iter().enumerate().map(|(index, of)| (of.affinity, cpu(index))),
        )?;
        by_affinity.sort_unstable();
        let intids = config.wired_intids();
        let last = intids.last_shared().and_then(WiredIndex::of).and_then(WiredIndex::shared_index);
        let shared = 0..last.map_or(0, |last| last + 1);
        let wired = Self {
            intids,
            security: config.security,
            one_of_n: config.one_of_n,
            by_affinity,
            control: AtomicU32::new(0),
            shared: try_boxed_slice(shared.clone().map(|_| Interrupt::new(InterruptWord::new())))?,
            routes: Mutex::new(try_boxed_slice(shared.map(|_| Irouter::new().affinity()))?),
            cpus: privates(config)?,
            wakeup,
            awaited: Awaited::new(),
            observer: SetOnce::new(),
            physical: SetOnce::new(),
        };
        wired.reset(config);
        Ok(wired)
    }

    /// Gives everything its state after reset; lines stay as they are driven, and links are kept.
    /// Nobody is notified: no group is enabled, and no vCPU runs.
    pub(crate) fn reset(&self, config: &VgicConfig) {
        self.control.store(0, SeqCst);
        let mut routes = self.routes.lock();
        routes.fill(Irouter::new().affinity());
        let target = self.resolve(Irouter::new());
        for (index, interrupt) in self.shared.iter().enumerate() {
            if let Some(index) = WiredIndex::shared(index) {
                self.reset_interrupt(config, Cpu::new(0), index, interrupt, target);
            }
        }
        drop(routes);
        for index in 0..self.cpus.len() {
            self.reset_private(config, cpu(index));
        }
    }

    fn reset_interrupt(
        &self,
        config: &VgicConfig,
        cpu: Cpu,
        index: WiredIndex,
        interrupt: &Interrupt,
        target: u16,
    ) {
        let (old, new) = interrupt.update(|state| reset_state(config, index, state, target));
        self.released_at(cpu, index, old, new);
    }

    fn reset_private(&self, config: &VgicConfig, cpu: Cpu) {
        let Some(private) = self.private(cpu) else { return };
        let target = u16::try_from(cpu.get()).unwrap_or(InterruptWord::NOWHERE);
        for (index, interrupt) in private.interrupts.iter().enumerate() {
            if let Some(index) = WiredIndex::new(index) {
                self.reset_interrupt(config, cpu, index, interrupt, target);
            }
        }
        let awake = if config.resets_awake() { participation::AWAKE } else { 0 };
        private.participation.store(awake, SeqCst);
    }

    /// Sets the observer of a line's end of interrupt. Must be called once.
    pub(crate) fn observe(
        &self,
        observer: Arc<dyn LineObserver>,
    ) -> Result<(), Arc<dyn LineObserver>> {
        self.observer.set(observer)
    }

    /// The vCPU's part; `None` for a vCPU that the machine does not have.
    #[inline]
    pub(crate) fn private(&self, cpu: Cpu) -> Option<&Private> {
        self.cpus.get(cpu.index()).map(|private| &**private)
    }

    /// The vCPUs' parts, by number.
    pub(crate) fn privates(&self) -> &[Arc<Private>] {
        &self.cpus
    }

    /// The word of an implemented interrupt: `cpu`'s own one if it is private.
    fn interrupt(&self, cpu: Cpu, index: WiredIndex) -> Option<&Interrupt> {
        match index.shared_index() {
            Some(index) => self.shared.get(index),
            None => self.private(cpu)?.interrupts.get(index.get()),
        }
    }

    fn index(&self, intid: IntId) -> Option<WiredIndex> {
        WiredIndex::of(intid).filter(|_| self.intids.contains(intid))
    }

    /// The state of an interrupt that the guest can see; `None` for any other.
    pub(crate) fn visible(&self, cpu: Cpu, intid: IntId) -> Option<InterruptWord> {
        let state = self.interrupt(cpu, self.index(intid)?)?.state();
        self.is_visible(state).then_some(state)
    }

    fn is_visible(&self, state: InterruptWord) -> bool {
        self.security == SecurityView::Single || state.group1()
    }

    /// The state of the interrupt at `index`, visible to the guest or not.
    pub(crate) fn state(&self, cpu: Cpu, index: WiredIndex) -> InterruptWord {
        self.interrupt(cpu, index).map_or(InterruptWord::new(), Interrupt::state)
    }

    /// Changes an interrupt that the guest can see, as a register write does.
    pub(crate) fn change(
        &self,
        cpu: Cpu,
        intid: IntId,
        change: impl Fn(InterruptWord) -> InterruptWord,
    ) {
        let changed =
            self.try_change(cpu, intid, |state| self.is_visible(state).then(|| change(state)));
        if let Some((old, new)) = changed {
            self.recall_changed(intid, old, new);
        }
    }

    /// A message changes a shared interrupt that the guest can see: `Pending` if it is pending
    /// afterwards.
    pub(crate) fn signal(
        &self,
        intid: IntId,
        change: impl Fn(InterruptWord) -> InterruptWord,
    ) -> Delivery {
        let changed = self
            .try_change(Cpu::new(0), intid, |state| self.is_visible(state).then(|| change(state)));
        match changed {
            Some((_, state)) if state.pending() => Delivery::Pending,
            _ => Delivery::Blocked,
        }
    }

    /// Changes an interrupt and sends the notifications that follow. `None`: there is none, or
    /// `change` declines.
    fn try_change(
        &self,
        cpu: Cpu,
        intid: IntId,
        change: impl Fn(InterruptWord) -> Option<InterruptWord>,
    ) -> Option<(InterruptWord, InterruptWord)> {
        let index = self.index(intid)?;
        let (old, new) = self
            .interrupt(cpu, index)?
            .try_update(|state| change(state).map(|new| self.aim(state, new.released())))?;
        self.released_at(cpu, index, old, new);
        self.settle(index, new);
        self.refresh_listed(old, new);
        Some((old, new))
    }

    /// After storing `state`, notifies its target if it is ready.
    #[inline]
    fn settle(&self, index: WiredIndex, state: InterruptWord) {
        let state = if state.any() { self.settle_any(index, state) } else { state };
        if state.ready()
            && let Some(target) = state.target()
            && let Some(private) = self.private(target)
        {
            self.notify(target, private, index, state);
        }
    }

    /// `target`, to which this part belongs, must notice an interrupt that is ready there.
    #[inline]
    fn notify(&self, target: Cpu, private: &Private, index: WiredIndex, state: InterruptWord) {
        private.candidates.set(index);
        if self.forwards(Group::of(state)) {
            self.wakeup.kick(target);
        }
    }

    /// A wired input changed. `None`: there is no such input.
    pub(crate) fn drive(&self, line: Line, level: Level) -> Option<InterruptWord> {
        self.change_input(line, |state| state.driven(level))
    }

    /// An edge arrives at a wired input. `None`: there is no such input.
    pub(crate) fn pulse(&self, line: Line) -> Option<InterruptWord> {
        self.change_input(line, InterruptWord::pulsed)
    }

    fn change_input(
        &self,
        line: Line,
        change: impl Fn(InterruptWord) -> InterruptWord,
    ) -> Option<InterruptWord> {
        let (cpu, index) = self.input(line)?;
        self.try_change(cpu, index.intid(), |state| Some(change(state))).map(|(_, new)| new)
    }

    /// The vCPU and the index by which a wired input is found; `None`: there is no such input.
    fn input(&self, line: Line) -> Option<(Cpu, WiredIndex)> {
        let (cpu, intid) = match line {
            Line::Spi(number) => (Cpu::new(0), IntId::new(number)),
            Line::Ppi { cpu, intid } => (cpu, IntId::new(intid)),
        };
        let wired = match line {
            Line::Spi(_) => intid.is_shared(),
            Line::Ppi { .. } => intid.is_private() && intid.class() != IntIdClass::Sgi,
        };
        Some((cpu, self.index(intid).filter(|_| wired)?))
    }

    /// `GICD_CTLR`'s enable of the group.
    pub(crate) fn forwards(&self, group: Group) -> bool {
        self.control() & (1 << group.index()) != 0
    }

    /// Has a vCPU with list registers not yet seen what the guest changed by the distributor?
    pub(crate) fn awaits_folding(&self) -> bool {
        self.awaited.is_outstanding(&self.wakeup)
    }

    /// Has a vCPU with list registers not yet seen what was changed where this is asked for?
    pub(crate) fn is_outstanding(&self, awaited: &Awaited) -> bool {
        awaited.is_outstanding(&self.wakeup)
    }

    /// The value that [`set_control`](Self::set_control) stored.
    pub(crate) fn control(&self) -> u32 {
        self.control.load(SeqCst)
    }

    /// Stores `EnableGrp0`, `EnableGrp1` and `E1NWF`. After a change, vCPUs look anew at what is
    /// pending: injectors did not wake them for groups that were disabled.
    pub(crate) fn set_control(&self, change: impl Fn(u32) -> u32) {
        let changed = |old| Some(change(old)).filter(|new| *new != old);
        if self.control.fetch_update(SeqCst, SeqCst, changed).is_err() {
            return;
        }
        for index in 0..self.cpus.len() {
            let _ = self.wakeup.recall(cpu(index));
            self.wakeup.kick(cpu(index));
        }
        self.awaited.ask();
    }

    /// The candidates of `cpu` that are ready there, with their states. For the vCPU's own thread.
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

    /// `cpu` acknowledges the interrupt at `index` if it still is as `expected`, apart from what
    /// does not matter.
    pub(crate) fn acknowledge(&self, cpu: Cpu, index: WiredIndex, expected: InterruptWord) -> bool {
        let Some(interrupt) = self.interrupt(cpu, index) else { return false };
        interrupt
            .try_update(|state| {
                let same = state.ready_at(cpu)
                    && state.priority() == expected.priority()
                    && state.group1() == expected.group1();
                same.then(|| state.acknowledged().with_taker(cpu))
            })
            .is_some()
    }

    /// The guest finished with an interrupt: by EOI, DIR or `ICACTIVER`. Tells the observer before
    /// anybody hears of a level that is still high, so that a source which is done can lower it
    /// first.
    pub(crate) fn deactivate(&self, cpu: Cpu, intid: IntId) {
        let Some(index) = self.index(intid) else { return };
        let Some(interrupt) = self.interrupt(cpu, index) else { return };
        let done = interrupt.try_update(|state| {
            let done = (state.active() || state.listed()) && self.is_visible(state);
            done.then(|| self.aim(state, state.deactivated()))
        });
        let Some((old, new)) = done else { return };
        self.released_at(cpu, index, old, new);
        if old.active() && !old.physical_active() {
            self.tell_observer_of(cpu, intid, old);
        }
        self.settle(index, interrupt.state());
        self.recall_changed(intid, old, new);
    }

    fn tell_observer_of(&self, cpu: Cpu, intid: IntId, state: InterruptWord) {
        if !state.edge() && intid.class() != IntIdClass::Sgi {
            self.tell_observer(cpu, intid);
        }
    }

    fn tell_observer(&self, cpu: Cpu, intid: IntId) {
        if let Some((observer, index)) = self.observer.get().zip(WiredIndex::of(intid)) {
            observer.deactivated(line_of(cpu, index));
        }
    }
}

fn privates(config: &VgicConfig) -> Result<Box<[Arc<Private>]>, OutOfMemory> {
    let mut all = Vec::new();
    all.try_reserve_exact(config.cpus.len())?;
    for of in &config.cpus {
        all.push(try_arc(Private::new(of.affinity))?);
    }
    Ok(all.into_boxed_slice())
}

/// An interrupt after reset: disabled, level-sensitive (SGIs: edge), Group 0, the most urgent
/// priority. Where there are two security states, firmware has given the guest its interrupts:
/// Non-secure Group 1, the most urgent that it can express.
fn reset_state(
    config: &VgicConfig,
    index: WiredIndex,
    before: InterruptWord,
    target: u16,
) -> InterruptWord {
    let intid = index.intid();
    let state = InterruptWord::new()
        .with_line(before.let_go().line())
        .linked_as(before)
        .with_edge(intid.class() == IntIdClass::Sgi)
        .with_target_index(target);
    match config.security {
        SecurityView::Single => state,
        SecurityView::NonSecure if config.secure_interrupts.contains(&intid) => state,
        SecurityView::NonSecure => {
            state.with_group1(true).with_priority_value(Priority::from_non_secure_view(0).get())
        }
    }
}

/// The line of an interrupt: `cpu`'s own one if it is private.
fn line_of(cpu: Cpu, index: WiredIndex) -> Line {
    let intid = index.intid();
    if intid.is_private() { Line::Ppi { cpu, intid: intid.get() } } else { Line::Spi(intid.get()) }
}
