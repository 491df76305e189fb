//! Per-LPI state, and its way to the vCPU without a lock. The core owns every mapped event's entry,
//! what leads to it and what says that it is ready. After SYNC, nothing becomes pending at an old
//! place.
//!
//! # State
//!
//! Every mapped event has an **entry**: one atomic word, its translation and its pending bit. Its
//! value names target, priority and INTID of one moment, so an LPI is never pending at two places
//! or at an old one. An LPI can also be pending at a redistributor that no event of it targets: by
//! `GICR_SETLPIR`, by MOVALL, from the pending table. That is an entry of its own, in a flat table
//! of the redistributor. When the LPI's event comes to that redistributor, its entry takes over
//! what is pending there. So an LPI has one entry at each redistributor.
//!
//! | object | holds |
//! |---|---|
//! | entry (`entry`, `entry_table`, `redistributor_lpis`) | P pending, E enabled, D deliverable, priority level, target vCPU, LPI, generation |
//! | device table entry and ITT (`device_table`, `itt`) | from DeviceID and EventID to the entry, and the generation it must have |
//! | ready bitmap (`ready_bitmap`) | per vCPU and level a bit per entry, summarised: "look at the entry" |
//! | `needs_kick` ([`VcpuWakeup`]) | the vCPU is in WFI or in guest mode |
//! | state under the command lock (`control`: `translator`, `tables`, `sweep`, `device_entries`) | devices and collections, `EnableLPIs`, sweeps in progress, owners of entries |
//!
//! D folds everything that can forbid a message: event and collection mapped, ITS enabled, target's
//! `EnableLPIs`. A message reads no other flag, and a command that forbids has finished when it has
//! rewritten the entries.
//!
//! # Nothing is lost, misplaced or late
//!
//! `injection` has the steps of a message in their order. They rest on this:
//!
//! 1. P is set only by an exchange of the whole entry. At that moment the event was mapped and
//!    deliverable, with that target, priority and INTID. A producer delayed before the exchange
//!    fails. One delayed after it only sets a ready bit and kicks.
//! 2. The entry's generation equals that of the link to it exactly while the entry belongs to that
//!    device. A generation never comes back (`entry_allocator` retires what used them up). A device
//!    table entry may pass to another device: a message checks that it is still its own device's
//!    after it has read it (`device_table`).
//! 3. Ready bits carry no authority. A stray one leads to an entry that is not ready.
//! 4. After storing a pending, enabled entry, a writer sets its ready bit, then kicks the target.
//!    Each of these pairs of accesses is sequentially consistent, and one side sees the other. The
//!    pairs are entry and leaf, leaf and summary, summary and top, top and mask, mask and
//!    `needs_kick`.
//! 5. All writes of an entry are read-modify-writes, also for a message whose event is pending
//!    already. So the acknowledgement that takes it has seen what the device wrote before.
//!
//! Two events mapped to one LPI are two entries, and may deliver it twice.
//!
//! # List registers
//!
//! A vCPU that runs guest code with list registers takes LPIs along (L). P is clear then, and set
//! again by a message that comes meanwhile. When the vCPU exits it folds the list register into the
//! entry. What the guest did not acknowledge becomes pending again, at the target that the entry
//! names then. A command that removes pending state also sets R, so that the list register brings
//! nothing back. R outlives DISCARD and MAPTI of the same event. It needs not outlive MAPD, after
//! which the generation differs. Nothing is signalled from an entry that is listed, so an LPI is in
//! one list register at most.
//!
//! A command that changes a listed entry recalls its vCPU. SYNC waits until every vCPU recalled
//! before it has folded. So after SYNC nothing is pending at an old place, in list registers
//! neither. Disabling LPIs and MOVALL count what is in a list register as pending. If the guest has
//! acknowledged it, and not exited since, it is delivered once more.
//!
//! # Choices that the architecture leaves
//!
//! - MAPC of a mapped collection to another redistributor, and MOVI, take pending state along.
//!   MOVALL moves what is pending at the first redistributor, nothing else.
//! - MAPTI of a mapped event, and MAPD of a mapped device, discard what was pending before.
//! - What is pending stays so when the ITS is disabled or the collection unmapped: it is at the
//!   redistributor.
//! - What moves to a redistributor whose LPIs are disabled is held, and pending there once they are
//!   enabled.
//! - A configuration byte may be read again at any command that touches its LPI, and is at INV,
//!   INVALL and when the event becomes deliverable.
//!
//! # Sweeps
//!
//! Requests that concern everything mapped are carried out a piece at a time (`sweep_steps`): MAPC,
//! INVALL, MOVALL, MAPD, `EnableLPIs`, `GITS_CTLR.Enabled`. `GITS_CREADR`, `RWP`, `Busy` or
//! `Quiescent` report them as done when they are. Enabling has no such report: the write that
//! enables LPIs or an ITS ends with its sweep, or is repeated until that is done. The register
//! reads as disabled until then.
//!
//! # When the heap has no memory left
//!
//! Messages, acknowledgement and everything that takes mappings away allocate nothing. A command
//! that maps an event or a device, moves an event or invalidates it takes its memory first:
//! without, it fails, and nothing changed. A sweep waits where it is (`sweep_steps`). An enable
//! does not take effect.
//!
//! # Locks
//!
//! ```text
//! Its.state              one per ITS: registers and queue
//!   └─ LpiCore.control   one per machine: cold state, and the right to rewrite entries for it
//! (none)                 messages, acknowledgement, notification: no kick is sent with a lock held
//! ```
//!
//! `LpiCore.control` is held for 1024 entries at a time at most, but for what a monitor asks for.

#![expect(clippy::inline_always, reason = "a message's short way is one function without stack")]

mod config;
mod consumer;
mod control;
mod device_entries;
mod device_table;
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
mod pending_lpis;
mod ready_bitmap;
mod redistributor;
mod redistributor_lpis;
mod saved;
mod shared;
mod sweep;
mod sweep_steps;
mod tables;
mod translator;

use crate::monitor::memory::GuestMemory;
use crate::monitor::progress::Progress;
use crate::sync::lock::Mutex;
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use crate::wakeup::VcpuWakeup;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use doorbell_fallible::{OutOfMemory, try_arc, try_boxed_slice};
use gic_arch::Lpi;
use msi_types::Cpu;
use sweep::Cause;

pub(crate) use config::{LpiConfig, MAX_EVENT_BITS, MAX_ID_BITS, Priorities, PriorityView};
use consumer::Consumer;
pub(crate) use consumer::{ListedLpi, ReadyLpi};
pub(crate) use control::Control;
pub(crate) use device_table::DeviceTable;
pub(crate) use fault_recorder::LpiFaults;
pub(crate) use injection::Injection;
pub(crate) use its_commands::MappedEvent;
pub(crate) use mapping::{ItsIndex, MappedDevice, NoRoom};
pub(crate) use pending_lpis::PendingLpis;
pub(crate) use saved::{ReservedLevels, Room, SavedLpi};
use shared::Shared;
pub(crate) use tables::LpiTables;

/// Entries that count as a unit of work.
pub(crate) const ENTRIES_PER_UNIT: u64 = 16;
/// Entries visited with the command lock held, before others get it.
pub(crate) const ENTRIES_PER_PIECE: u64 = 1 << 10;
/// Turns of a spinning loop between two pieces of a long access, in which others get the command
/// lock.
const SPINS_PER_PIECE: u32 = 64;

/// The LPIs of one machine: shared by its ITSes, redistributors and vCPUs.
pub(crate) struct LpiCore {
    shared: Arc<Shared>,
    wakeup: Arc<VcpuWakeup>,
    control: Mutex<Control>,
    /// Commands made something ready, and its vCPU may not have been kicked yet.
    must_kick: AtomicBool,
    /// Units of work that an access to a redistributor's register does before it leaves the rest
    /// to the next.
    work_per_access: u32,
    /// One bit per vCPU: its `PendingLpis` was given out.
    given_out: Box<[AtomicU32]>,
}

impl fmt::Debug for LpiCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LpiCore").field("vcpus", &self.given_out.len()).finish_non_exhaustive()
    }
}

impl LpiCore {
    /// A core without mappings, all LPIs disabled. Sizes beyond what [`LpiConfig`] allows are cut
    /// down.
    pub(crate) fn new(
        config: LpiConfig,
        memory: Arc<dyn GuestMemory>,
        wakeup: Arc<VcpuWakeup>,
        faults: LpiFaults,
    ) -> Result<Arc<Self>, OutOfMemory> {
        let config = config.bounded();
        let tables = try_arc(Shared::new(&config)?)?;
        Ok(try_arc(Self {
            shared: tables.clone(),
            control: Mutex::new(Control::new(config, tables, memory, faults, wakeup.clone())?),
            wakeup,
            must_kick: AtomicBool::new(false),
            work_per_access: config.work_per_access,
            given_out: try_boxed_slice((0..config.vcpus).map(|_| AtomicU32::new(0)))?,
        })?)
    }

    /// The half that `cpu`'s thread owns; `None` if it is given out already, or there is no such
    /// vCPU.
    pub(crate) fn pending_lpis(
        self: &Arc<Self>,
        cpu: Cpu,
    ) -> Result<Option<PendingLpis>, OutOfMemory> {
        let Some(given) = self.given_out.get(cpu.index()) else { return Ok(None) };
        let consumer = Consumer::new(cpu.get())?;
        let is_free = given.swap(1, Ordering::SeqCst) == 0;
        Ok(is_free.then(|| PendingLpis::new(self.clone(), consumer)))
    }

    fn release_pending_lpis(&self, cpu: Cpu) {
        if let Some(given) = self.given_out.get(cpu.index()) {
            given.store(0, Ordering::SeqCst);
        }
    }

    fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Adds an ITS with this device table, up to 2^16 of them.
    pub(crate) fn add_its(
        &self,
        base: u64,
        device_table: Arc<DeviceTable>,
    ) -> Result<ItsIndex, NoRoom> {
        self.control.lock().add_its(base, device_table)
    }

    /// Returns true if an event of a device of an ITS is mapped to a mapped collection. Lock-free.
    /// While a command changes the mapping, either result is possible.
    ///
    /// Context: any.
    pub(crate) fn is_mapped(&self, device_table: &DeviceTable, device: u32, event: u32) -> bool {
        self.shared.is_mapped(device_table, device, event)
    }

    /// Runs `change` under the command lock, for callers that hold locks themselves. They must call
    /// [`send_kicks`](Self::send_kicks) after they release them.
    pub(crate) fn with_kicks_deferred<R>(&self, change: impl FnOnce(&mut Control) -> R) -> R {
        let mut control = self.control.lock();
        let result = change(&mut control);
        if control.has_kicks() {
            self.must_kick.store(true, Ordering::SeqCst);
        }
        result
    }

    /// Kicks the vCPUs that commands made something ready for, and one for work that is left over.
    pub(crate) fn send_kicks(&self) {
        self.wakeup.kick_for_work();
        if self.must_kick.load(Ordering::SeqCst) && self.must_kick.swap(false, Ordering::SeqCst) {
            self.send_pending_kicks();
        }
    }

    fn send_pending_kicks(&self) {
        loop {
            let Some(vcpu) = self.control.lock().pop_kick() else { return };
            self.kick(vcpu);
        }
    }

    fn with<R>(&self, change: impl FnOnce(&mut Control) -> R) -> R {
        let result = self.with_kicks_deferred(change);
        self.send_kicks();
        result
    }

    /// `GICR_CTLR.EnableLPIs` was set: returns when that holds for every LPI. For callers that hold
    /// no locks.
    pub(crate) fn finish_enabling(&self, cpu: Cpu) -> Result<(), OutOfMemory> {
        self.finish(Cause::Enable(cpu.get()))
    }

    /// `GITS_CTLR.Enabled` was set: returns when that holds for every event. For callers that hold
    /// no locks.
    pub(crate) fn finish_enabling_its(&self, its: ItsIndex) -> Result<(), OutOfMemory> {
        self.finish(Cause::Admit(its))
    }

    /// Takes time in proportion to what is mapped. Also returns if a concurrent write clears the
    /// enable bit. Terminates: each re-enable runs its own sweep.
    fn finish(&self, cause: Cause) -> Result<(), OutOfMemory> {
        while !self.with(|control| control.advance(cause, control.work() + ENTRIES_PER_PIECE))? {
            // Without a pause, a waiter would seldom see the lock free.
            (0..SPINS_PER_PIECE).for_each(|_| core::hint::spin_loop());
        }
        Ok(())
    }

    /// Goes on with what registers asked for, by up to one access's budget. For callers that hold
    /// no locks.
    pub(crate) fn advance_registers(&self) {
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

    /// As [`advance_registers`](Self::advance_registers), unless another thread is at work.
    pub(crate) fn try_advance_registers(&self) {
        if !self.is_busy() {
            self.advance_registers();
        }
    }

    /// Does another thread hold the command lock?
    pub(crate) fn is_busy(&self) -> bool {
        self.control.try_lock().is_none()
    }

    /// One of the ITSes has this left over now, and had `left` before.
    pub(crate) fn note_work(&self, left: &mut bool, progress: Progress) {
        self.wakeup.note_work(left, progress);
    }

    /// Finishes every sweep, in one go.
    pub(crate) fn finish_sweeps(&self) -> Result<(), OutOfMemory> {
        self.with(Control::finish_sweeps)
    }

    /// All redistributors are reset: LPIs are disabled, what was pending is gone, memory is not
    /// written.
    pub(crate) fn reset_lpis(&self) {
        self.with(Control::reset_lpis);
    }

    /// `GICR_INVLPIR`.
    pub(crate) fn invalidate(&self, cpu: Cpu, lpi: Lpi) -> Result<(), OutOfMemory> {
        self.with(|control| control.invalidate(cpu.get(), lpi))
    }

    /// `GICR_INVALLR`.
    pub(crate) fn invalidate_all(&self, cpu: Cpu) {
        self.with(|control| control.invalidate_all(cpu.get()));
    }

    /// `GICR_CLRLPIR`.
    pub(crate) fn clear_lpi(&self, cpu: Cpu, lpi: Lpi) {
        self.with(|control| control.clear_lpi(cpu.get(), lpi));
    }

    /// The LPIs that are pending at `cpu`'s redistributor.
    #[cfg(test)]
    pub(crate) fn pending(&self, cpu: Cpu) -> alloc::vec::Vec<Lpi> {
        self.with_kicks_deferred(|control| control.pending(cpu.get()))
    }
}
