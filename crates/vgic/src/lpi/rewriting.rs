//! Rewrites entries after a command has changed what they follow from.

use super::command_state::{CommandState, Refresh};
use super::entry::{Entry, Level};
use super::entry_table::Position;
use super::shared::Location;
use super::sweep::Settings;
use crate::sync::lock::{Mutex, MutexGuard};
use alloc::boxed::Box;
use doorbell_fallible::{OutOfMemory, try_boxed_slice};
use gic_arch::Lpi;
use msi_types::Cpu;

/// Record of the entries that were rewritten under one lock.
pub(super) struct Rewrites {
    /// Number of entries that were changed, plus those that sweeps visited.
    pub(super) work: u64,
    /// The last entries that a command changed before a message had set their ready bits, as they
    /// were before the change.
    overtaken: [Option<(Location, Entry)>; OVERTAKEN],
    next_overtaken: usize,
}

/// Number of overtaken messages to remember. A message that is delayed until this many others have
/// been overtaken leaves a stale ready bit, so each sender can leave one.
const OVERTAKEN: usize = 16;

impl Rewrites {
    pub(super) const fn new() -> Self {
        Self { work: 0, overtaken: [None; OVERTAKEN], next_overtaken: 0 }
    }
}

/// Log2 of the number of locks. Without an operating system, few threads execute commands.
const LOCK_BITS: u32 = if cfg!(feature = "std") { 5 } else { 0 };
/// Log2 of the number of consecutive LPIs with the same lock. Most devices have consecutive LPIs,
/// and commands for one device often follow each other.
const LPI_BITS: u32 = 5;
/// 2^32 divided by the golden ratio, which spreads consecutive numbers over the upper bits.
const SPREAD: u32 = 0x9e37_79b9;

/// Locks of LPIs. Each protects a set of LPIs, and the record of their rewritten entries.
pub(super) struct Rewriters(Box<[Rewriter]>);

/// Lock that shares no cache line with another lock.
#[repr(align(128))]
struct Rewriter(Mutex<Rewrites>);

impl Rewriters {
    pub(super) fn new() -> Result<Self, OutOfMemory> {
        let rewriters = (0..1 << LOCK_BITS).map(|_| Rewriter(Mutex::new(Rewrites::new())));
        Ok(Self(try_boxed_slice(rewriters)?))
    }

    /// Locks an LPI, by index.
    pub(super) fn lock(&self, lpi_index: u32) -> MutexGuard<'_, Rewrites> {
        let spread = (lpi_index >> LPI_BITS).wrapping_mul(SPREAD);
        self.0[(u64::from(spread) >> (u32::BITS - LOCK_BITS)) as usize].0.lock()
    }
}

/// Returns the vCPU and level at which an entry has its ready bit.
fn place(entry: Entry) -> (u32, Level) {
    (entry.target(), entry.level())
}

impl CommandState {
    pub(super) fn set_ready_bit(&self, written: Entry, position: Position) {
        if let Some(vcpu) = self.shared.set_ready_bit(written, position) {
            self.shared.pending_kicks.insert(vcpu);
        }
    }

    /// Completes a change of an entry for the vCPU that `old` targets: recalls the LPI from a list
    /// register, and clears the ready bit if `new` is not ready there. Otherwise, the vCPU would
    /// have to look at each of these entries before it finds the next ready one. If `new` is
    /// ready, callers must set its ready bit.
    pub(super) fn retire(
        &self,
        rewrites: &mut Rewrites,
        location: Location,
        old: Entry,
        new: Entry,
    ) {
        rewrites.work += u64::from(old != new);
        self.recall(old);
        if !old.is_ready() || (new.is_ready() && place(new) == place(old)) {
            return;
        }
        if !self.clear_ready_bit(location, old) {
            self.clear_stale_bits(rewrites);
            rewrites.overtaken[rewrites.next_overtaken] = Some((location, old));
            rewrites.next_overtaken = (rewrites.next_overtaken + 1) % OVERTAKEN;
        }
        // A message may have made the entry ready again before its bit was cleared.
        let now = self.shared.load(location);
        if now.is_ready() && !new.is_ready() {
            self.set_ready_bit(now, self.shared.position(location));
        }
    }

    /// Clears an entry's ready bit where it was ready before a change. Returns `false` if the bit
    /// was not set: a message that has not set it yet may do so later. Callers must check the entry
    /// afterwards.
    fn clear_ready_bit(&self, location: Location, old: Entry) -> bool {
        let cleared = self.shared.clear_ready_bit(old, self.shared.position(location));
        if cleared.is_some_and(|cleared| cleared.hid_others) {
            self.shared.pending_kicks.insert(old.target());
        }
        cleared.is_none_or(|cleared| cleared.was_set)
    }

    /// Clears the ready bits that overtaken messages have set since. Without this, a guest could
    /// collect stale bits at a vCPU that doesn't look at them, and its next entry would visit all.
    fn clear_stale_bits(&self, rewrites: &mut Rewrites) {
        for index in 0..OVERTAKEN {
            let Some((location, old)) = rewrites.overtaken[index] else { continue };
            let is_ready = |entry: Entry| entry.is_ready() && place(entry) == place(old);
            if is_ready(self.shared.load(location)) {
                continue;
            }
            if self.clear_ready_bit(location, old) {
                rewrites.overtaken[index] = None;
            }
            let now = self.shared.load(location);
            if is_ready(now) {
                self.set_ready_bit(now, self.shared.position(location));
            }
        }
    }

    /// Recalls the vCPU that has a changed entry's LPI in a list register, if any. `old` is the
    /// entry before the change.
    pub(super) fn recall(&self, old: Entry) {
        if old.is_listed() && self.wakeup.recall(Cpu::new(old.target())) {
            self.shared.pending_kicks.insert(old.target());
        }
    }

    /// Updates an entry to match the command state.
    ///
    /// # Errors
    /// There is no memory for the entry's ready bit. The entry is unchanged.
    pub(super) fn refresh(
        &self,
        rewrites: &mut Rewrites,
        location: Location,
        settings: Settings,
    ) -> Result<(), OutOfMemory> {
        if let Some(refresh) = self.prepared(location, settings)? {
            self.write(rewrites, location, refresh);
        }
        Ok(())
    }

    /// Writes a prepared value to an entry.
    pub(super) fn write(&self, rewrites: &mut Rewrites, location: Location, refresh: Refresh) {
        let lpi_index = self.shared.load(location).lpi_index();
        let is_event = matches!(location, Location::Event(_));
        let brought = is_event && self.take_own(rewrites, refresh.target(), lpi_index);
        let (old, new) = self.shared.update(location, |entry| refresh.applied_to(entry, brought));
        if old != new {
            self.retire(rewrites, location, old, new);
        }
        if old != new || refresh.reloads() {
            self.set_ready_bit(new, self.shared.position(location));
        }
    }

    /// Clears an entry's pending state, including pending state held for a redistributor whose LPIs
    /// are disabled. Returns `true` if either was set.
    pub(super) fn clear(&self, rewrites: &mut Rewrites, location: Location) -> bool {
        let (old, new) = self.shared.update(location, Entry::emptied);
        self.retire(rewrites, location, old, new);
        old.is_pending_or_held()
    }

    /// Clears the pending state of a redistributor's own LPI, so that the entry of an event that
    /// targets the redistributor can take it over. Returns `true` if the LPI was pending. Leaves an
    /// LPI alone whose state isn't [known](super::control::Control::ensure_folded).
    pub(super) fn take_own(&self, rewrites: &mut Rewrites, vcpu: u32, index: u32) -> bool {
        let own = Location::Own { vcpu, index };
        let taken = |entry: Entry| {
            let is_known = entry.is_pending_or_held() && !entry.awaits_fold();
            is_known.then(|| entry.emptied())
        };
        let old = self.shared.try_update(own, taken);
        old.inspect(|old| self.retire(rewrites, own, *old, old.emptied())).is_some()
    }

    /// Rereads an LPI's configuration from memory for a redistributor. Returns `false` if several
    /// events are mapped to the LPI, which have yet to reread it.
    pub(super) fn reload_lpi(
        &self,
        rewrites: &mut Rewrites,
        vcpu: u32,
        lpi: Lpi,
    ) -> Result<bool, OutOfMemory> {
        self.refresh(rewrites, Location::own(vcpu, lpi), Settings::Reload)?;
        let Some(first) = self.device_entries.by_lpi.first(lpi.index()) else { return Ok(true) };
        let (is_only, event) =
            (self.device_entries.by_lpi.after(first).is_none(), Location::Event(first));
        if is_only && self.shared.load(event).target() == vcpu {
            self.refresh(rewrites, event, Settings::Reload)?;
        }
        Ok(is_only)
    }
}
