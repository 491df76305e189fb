//! Per-LPI state, and lock-free delivery to the vCPU. The core owns the entries of all mapped
//! events, the tables through which events are looked up, and the bitmaps that mark entries as
//! ready. Invariant: after SYNC, no LPI becomes pending at a former target.
//!
//! # State
//!
//! Every mapped event has an **entry**: one atomic word that holds its translation and its pending
//! bit. Because target, priority and INTID are stored together with the pending bit, an LPI is
//! never pending at two targets or at a former target.
//!
//! An LPI can also be pending at a redistributor that none of its events targets: through
//! `GICR_SETLPIR`, through MOVALL, or because its bit was set in the pending table when LPIs were
//! enabled. Such an LPI has a separate entry in that redistributor's flat table. When one of the
//! LPI's events is retargeted to that redistributor, the event's entry takes over the pending
//! state. Therefore, an LPI is pending in only one entry at each redistributor, i.e. in its event's
//! entry or in the redistributor's own entry.
//!
//! | object | contents |
//! |---|---|
//! | entry (`entry`, `entry_table`, `redistributor_lpis`) | P pending, E enabled, D deliverable, priority level, target vCPU, LPI, generation |
//! | device table entry and ITT (`device_table`, `itt`) | the links from DeviceID and EventID to the entry, and the generation that the entry must have |
//! | ready bitmap (`ready_bitmap`) | per vCPU and level, one bit per entry, with summaries; a set bit means "look at the entry" |
//! | `needs_kick` ([`VcpuWakeup`]) | set while the vCPU is in WFI or in guest mode |
//! | state under the command lock (`command_state`: `translator`, `tables`, `sweep`, `device_entries`) | devices and collections, `EnableLPIs`, sweeps in progress, owners of entries |
//!
//! D combines all conditions that can forbid a message: the event and its collection must be
//! mapped, the ITS enabled, and the target's `EnableLPIs` set. A message checks no other flag, and
//! a command that forbids messages is complete once it has rewritten the entries.
//!
//! # No LPI is lost, misplaced or late
//!
//! `injection` lists the steps that a message takes, in order. These steps are correct because of
//! the following rules:
//!
//! 1. P is set only by a compare-and-exchange of the whole entry, so at that moment the event was
//!    mapped and deliverable, with that target, priority and INTID. If the entry changes while a
//!    producer is delayed before the exchange, the exchange fails and the producer checks the new
//!    value. A producer that is delayed after the exchange only sets a ready bit and kicks.
//! 2. The entry's generation matches the generation in the link (the ITT node) for exactly as long
//!    as the entry belongs to that device. Generations are never reused (`entry_allocator` retires
//!    chunks and nodes whose generations are exhausted). A device table entry may be reassigned to
//!    another device, so a message that has read an entry checks that the entry still belongs to
//!    the message's device (`device_table`).
//! 3. Ready bits are only hints. A vCPU that follows a stale bit finds an entry that isn't ready,
//!    and ignores the bit. A command clears the bit of an LPI that it takes away, so only a message
//!    that a command overtakes leaves a stale bit. Later commands clear that bit as well
//!    (`rewriting`), so stale bits don't accumulate.
//! 4. After storing a pending, enabled entry, a writer sets its ready bit, then kicks the target.
//!    The accesses in each of these pairs are sequentially consistent, so at least one side
//!    observes the other. The pairs are entry and leaf, leaf and summary, summary and top, top and
//!    mask, mask and `needs_kick`.
//! 5. Every write of an entry that may admit a message is a read-modify-write, including by a
//!    message whose event is already pending. Therefore, a vCPU that acknowledges the interrupt
//!    observes everything that the device wrote before it sent the message.
//!
//! Two events that are mapped to one LPI have separate entries, and may deliver the LPI twice.
//! Their configuration is the LPI's: a command that rereads it for one of them also rereads it for
//! the others, by a sweep over the LPI's events or over all events. CLEAR visits the LPI's events,
//! too.
//!
//! # List registers
//!
//! When a vCPU enters guest mode, it moves LPIs into list registers and sets L ("listed") in their
//! entries. Moving an LPI clears P, and the next message sets P again. When the vCPU exits, it
//! folds each list register into the entry: if the guest didn't acknowledge the LPI, it becomes
//! pending again, at the entry's current target. A command that removes pending state also sets R,
//! so that folding doesn't restore the pending state. R survives DISCARD and MAPTI for the same
//! event. R doesn't have to survive MAPD, because MAPD changes the generation. An entry with L set
//! is not signaled, so an LPI is in at most one list register.
//!
//! A command that changes the entry of an LPI in a list register *recalls* the vCPU, i.e. makes it
//! exit and fold its list registers. SYNC waits until every previously recalled vCPU has done so.
//! After SYNC, no LPI is pending at a former target, not even in a list register.
//!
//! Only the fold shows whether the guest has acknowledged the LPI. Changes that depend on this wait
//! for the fold: MOVALL and disabling LPIs, which move pending state to another redistributor or to
//! memory, and mapping or moving an event to a redistributor at which its LPI is already pending.
//! The recalled vCPU resumes them when it next enters the guest or sleeps.
//!
//! # Choices that the architecture leaves
//!
//! - When MAPC maps an already mapped collection to another redistributor, and on MOVI, the pending
//!   state moves to the new redistributor. MOVALL only moves LPIs that are pending at the first
//!   redistributor.
//! - A mapping with the same operands as an existing one has no effect. MAPTI and MAPD with other
//!   operands discard the previous pending state.
//! - A pending LPI stays pending when the ITS is disabled or the collection unmapped, because the
//!   pending state belongs to the redistributor.
//! - If a pending LPI moves to a redistributor with LPIs disabled, the model keeps its pending
//!   state, and the LPI becomes pending when LPIs are enabled there.
//! - Any command that touches an LPI may reread its configuration byte. INV, INVALL and any command
//!   that makes the event deliverable always reread the byte.
//!
//! # Sweeps
//!
//! Requests that affect all mappings, i.e. MAPC, INVALL, MOVALL, MAPD, `EnableLPIs` and
//! `GITS_CTLR.Enabled`, are carried out by a *sweep*, one piece at a time (`sweep_steps`).
//! Completion is reported by `GITS_CREADR`, `RWP`, `Busy` or `Quiescent`. Enabling has no such
//! status bit, so the write that enables LPIs or an ITS returns only after all mappings have been
//! updated, or must be repeated until they have. Until then, the enable bit reads as zero.
//!
//! # When the heap has no memory left
//!
//! Messages, acknowledgments and commands that remove mappings don't allocate. A command that maps
//! an event or a device, or that moves or invalidates an event, allocates its memory first. If the
//! allocation fails, the command fails without any other effect. A sweep pauses if it runs out of
//! memory, and resumes later (`sweep_steps`). If the sweep belongs to a write that enables LPIs or
//! an ITS, the write doesn't take effect.
//!
//! # Locks
//!
//! ```text
//! Its.state                    one per ITS: registers and queue
//!   └─ LpiCore.control         one per machine, for reading or writing: command state
//!        └─ LpiCore.rewriters  one for each set of LPIs: their entries, while `control` is read
//! (none)                       messages, acknowledgment, notification: no kick with a lock held
//! ```
//!
//! Commands for one event, SYNC and writes of `GICR_INVLPIR` and `GICR_CLRLPIR` only concern one
//! LPI: they read the command state, and hold the lock of their LPI (`beside`). Two ITSes or
//! redistributors therefore execute them at the same time. A reader locks only one of the four
//! shards of `control`, so that most readers don't write a common cache line. All other commands
//! and sweeps run alone. So do commands other than INT if several events are mapped to the LPI, and
//! the MAPTI that allocates the block or the node of its event, which devices of several ITSes
//! share.
//!
//! `LpiCore.control` is held for at most 1024 entries at a time, except in operations that only the
//! VMM can request. A command counts as 16 entries.

#![expect(clippy::inline_always, reason = "keeps the fast path of a message free of stack frames")]

mod beside;
mod command_state;
mod config;
mod control;
mod device_entries;
mod device_table;
mod direct;
mod entries_by_lpi;
mod entry;
mod entry_allocator;
mod entry_table;
mod fault_recorder;
mod injection;
mod its_commands;
mod itt;
mod itt_teardown;
mod mapping;
#[cfg(all(test, shuttle))]
pub(crate) use ready_bitmap::filled::Filled;
mod pending_kicks;
mod pending_lpis;
mod ready_bitmap;
mod redistributor;
mod redistributor_lpis;
mod reload;
mod restoration;
mod rewriting;
mod saved;
mod shared;
mod status;
mod sweep;
mod sweep_steps;
mod tables;
mod translator;

use crate::monitor::{GuestMemory, Progress};
use crate::sync::lock::{Reading, ShardedLock};
use crate::wakeup::VcpuWakeup;
use alloc::sync::Arc;
use doorbell_fallible::{OutOfMemory, try_arc};
#[cfg(test)]
use gic_arch::Lpi;
use msi_types::Cpu;
use sweep::Cause;
pub(crate) use sweep::Pause;

pub(crate) use config::{LpiConfig, MAX_EVENT_BITS, MAX_ID_BITS, Priorities, PriorityView};
pub(crate) use control::Control;
pub(crate) use device_table::DeviceTable;
pub(crate) use direct::direct_target;
pub(crate) use fault_recorder::LpiFaults;
pub(crate) use injection::{Injection, NextStep, NodeLink, Pended, Signaled};
pub(crate) use its_commands::MappedEvent;
pub(crate) use itt::EntryRef;
pub(crate) use mapping::{ItsIndex, MappedDevice, NoRoom};
pub(crate) use pending_lpis::{ListedLpi, PendingLpis, ReadyLpi};
pub(crate) use restoration::{EnabledRange, Restoration};
use rewriting::Rewriters;
pub(crate) use saved::{
    SavedEvents, SavedLpi, each_event, enabled_direct_lpis, pending_by_themselves,
};
use shared::Shared;
pub(crate) use status::{EventStatus, LpiStatus, LpiTarget, event_status, lpi_target, why_dropped};
pub(crate) use tables::LpiTables;

/// Number of entries in one unit of work.
pub(crate) const ENTRIES_PER_UNIT: u64 = 16;
/// Number of entries to visit before releasing the command lock for other threads.
pub(crate) const ENTRIES_PER_PIECE: u64 = 1 << 10;
/// Spin loop iterations between two pieces of a long access, to let other threads take the command
/// lock.
const SPINS_PER_PIECE: u32 = 64;

/// A machine's LPIs, shared by its ITSes, redistributors and vCPUs.
pub(crate) struct LpiCore {
    shared: Arc<Shared>,
    wakeup: Arc<VcpuWakeup>,
    memory: Arc<dyn GuestMemory>,
    control: ShardedLock<Control>,
    rewriters: Rewriters,
    /// Maximum units of work per access to a redistributor register. Later accesses continue with
    /// the remaining work.
    work_per_access: u32,
}

msi_types::debug_by!(LpiCore as "LpiCore", |it| {vcpus: it.shared.ready.len()});

impl LpiCore {
    /// Creates a core without mappings and with all LPIs disabled. Sizes are limited to the maxima
    /// of [`LpiConfig`].
    pub(crate) fn new(
        config: LpiConfig,
        memory: Arc<dyn GuestMemory>,
        wakeup: Arc<VcpuWakeup>,
        faults: LpiFaults,
    ) -> Result<Arc<Self>, OutOfMemory> {
        let config = config.bounded();
        let tables = try_arc(Shared::new(&config, wakeup.words())?)?;
        Ok(try_arc(Self {
            shared: tables.clone(),
            memory: memory.clone(),
            control: ShardedLock::new(Control::new(
                config,
                tables,
                memory,
                faults,
                wakeup.clone(),
            )?)?,
            rewriters: Rewriters::new()?,
            wakeup,
            work_per_access: config.work_per_access,
        })?)
    }

    /// Returns the part of the state that `cpu`'s thread must own alone, or `None` if the machine
    /// doesn't have this vCPU.
    pub(crate) fn pending_lpis(&self, cpu: Cpu) -> Result<Option<PendingLpis>, OutOfMemory> {
        let Some(bitmap) = self.shared.ready.get(cpu.index()) else { return Ok(None) };
        let (shared, wakeup) = (self.shared.clone(), self.wakeup.clone());
        PendingLpis::new(cpu.get(), shared, wakeup, bitmap.clone()).map(Some)
    }

    pub(crate) fn memory(&self) -> &dyn GuestMemory {
        &*self.memory
    }

    fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Adds an ITS with this device table. A machine can have at most 2^16 - 1 ITSes.
    pub(crate) fn add_its(
        &self,
        base: u64,
        device_table: Arc<DeviceTable>,
    ) -> Result<ItsIndex, NoRoom> {
        self.control.write(|control| control.add_its(base, device_table))
    }

    /// Runs `change` while no other thread executes commands, without sending kicks, for callers
    /// that hold other locks. Callers must call [`send_kicks`](Self::send_kicks) after releasing
    /// them.
    pub(crate) fn with_kicks_deferred<R>(&self, change: impl FnOnce(&mut Control) -> R) -> R {
        self.control.write(change)
    }

    /// Returns the command state for reading. `reader` is the number of the ITS or vCPU that reads.
    /// Commands that [run beside](beside) others may change entries at the same time. Views and
    /// saves therefore use [`with_kicks_deferred`](Self::with_kicks_deferred).
    pub(crate) fn read(&self, reader: usize) -> Reading<'_, Control> {
        self.control.read(reader)
    }

    /// Kicks the vCPUs whose LPIs commands have made ready, and one vCPU if work was deferred.
    #[inline]
    pub(crate) fn send_kicks(&self) {
        self.wakeup.kick_for_work();
        self.shared.pending_kicks.take(|vcpu| self.kick(vcpu));
    }

    fn with<R>(&self, change: impl FnOnce(&mut Control) -> R) -> R {
        let result = self.with_kicks_deferred(change);
        self.send_kicks();
        result
    }

    /// Finishes setting `GICR_CTLR.EnableLPIs`. On success, it is in effect for every LPI. Callers
    /// must not hold any locks.
    pub(crate) fn finish_enabling(&self, cpu: Cpu) -> Result<(), Pause> {
        self.finish(Cause::Enable(cpu.get()))
    }

    /// Finishes setting `GITS_CTLR.Enabled`. On success, it is in effect for every event. Callers
    /// must not hold any locks.
    pub(crate) fn finish_enabling_its(&self, its: ItsIndex) -> Result<(), Pause> {
        self.finish(Cause::Admit(its))
    }

    /// Runs a sweep to its end, in time proportional to the number of mappings. Returns early if a
    /// concurrent write clears the enable bit. The loop terminates because a thread that sets the
    /// bit again runs the new sweep itself.
    fn finish(&self, cause: Cause) -> Result<(), Pause> {
        while !self.with(|control| control.advance(cause, control.work() + ENTRIES_PER_PIECE))? {
            // Without a pause, waiting threads would hardly ever acquire the lock.
            (0..SPINS_PER_PIECE).for_each(|_| core::hint::spin_loop());
        }
        Ok(())
    }

    /// Continues sweeps that register writes have started, within the budget of one access. Callers
    /// must not hold any locks.
    pub(crate) fn advance_registers(&self, reader: usize) {
        if self.read(reader).is_settled() {
            return self.send_kicks();
        }
        let mut left = u64::from(self.work_per_access) * ENTRIES_PER_UNIT;
        let mut is_done = false;
        while left > 0 && !is_done {
            let piece = ENTRIES_PER_PIECE.min(left);
            is_done = self.with(|control| control.advance_registers(control.work() + piece));
            left -= piece;
        }
        if !is_done || self.wakeup.has_work() {
            self.with(Control::note_registers);
        }
    }

    /// Calls [`advance_registers`](Self::advance_registers). Returns `false` without doing so if
    /// another thread holds the command lock.
    pub(crate) fn try_advance_registers(&self) -> bool {
        let is_free = !self.is_busy();
        if is_free {
            self.advance_registers(0);
        }
        is_free
    }

    /// Returns `true` if another thread holds the command lock.
    pub(crate) fn is_busy(&self) -> bool {
        self.control.is_busy()
    }

    /// Records whether an ITS now has deferred work. `left` is the previously recorded value, and
    /// is updated.
    pub(crate) fn note_work(&self, left: &mut bool, progress: Progress) {
        self.wakeup.note_work(left, progress);
    }

    /// Runs every sweep to its end.
    pub(crate) fn finish_sweeps(&self) -> Result<(), OutOfMemory> {
        self.with(Control::finish_sweeps)
    }

    /// Resets the LPI state of all redistributors: LPIs are disabled and pending state is discarded
    /// without being written to memory.
    pub(crate) fn reset_lpis(&self) {
        self.with(Control::reset_lpis);
    }

    /// Handles a write to `GICR_INVALLR`.
    pub(crate) fn invalidate_all(&self, cpu: Cpu) {
        self.with(|control| control.invalidate_all(cpu.get()));
    }

    /// Returns the number of ready bits for `cpu`, and of leaves whose summary bits are set.
    #[cfg(all(test, not(shuttle)))]
    pub(crate) fn ready_bits(&self, cpu: Cpu) -> (u32, u32) {
        self.shared.ready[cpu.index()].count()
    }

    /// Makes an event pending as a message does. Returns the rest of the message's work, so that
    /// tests can delay it.
    #[cfg(test)]
    pub(crate) fn begin_signal(
        &self,
        devices: &DeviceTable,
        (device, event): (u32, u32),
    ) -> impl FnOnce() {
        let found = self.shared.find(devices, device, event).expect("mapped");
        let seen = self.shared.set_pending(found).expect("deliverable");
        move || {
            let written = seen.with_pending(true);
            if let Some(vcpu) = self.shared.set_ready_bit(written, found.position) {
                self.kick(vcpu);
            }
        }
    }

    /// Sets an event's ready bit for `cpu`, like a message that was overtaken by a command.
    #[cfg(all(test, shuttle))]
    pub(crate) fn leave_ready_bit(&self, cpu: Cpu, devices: &DeviceTable, event: (u32, u32)) {
        let position = self.shared.find(devices, event.0, event.1).expect("mapped").position;
        self.shared.ready[cpu.index()].set(self.shared.entries.load(position).level(), position);
    }

    /// Returns the LPIs that are pending at `cpu`'s redistributor.
    #[cfg(test)]
    pub(crate) fn pending(&self, cpu: Cpu) -> alloc::vec::Vec<Lpi> {
        self.with_kicks_deferred(|control| control.pending(cpu.get()))
    }
}
