//! The producer protocol: a message makes an LPI pending and notifies its vCPU. A producer may be
//! any thread, takes no lock, doesn't allocate, and kicks at most once.
//!
//! 1. *Find the entry* ([`Shared::find`]): the device table entry points to the ITT, which holds
//!    the entry's position and expected generation.
//! 2. *Set the entry pending* ([`Shared::set_pending`]) by one exchange of the whole entry. At the
//!    moment of the exchange, the event was mapped and deliverable, with that target, priority and
//!    INTID.
//! 3. *Set the ready bit* ([`Shared::set_ready_bit`]) of the entry at its target and level, if the
//!    entry is enabled: leaf, summary, top word, mask.
//! 4. *Kick* ([`LpiCore::kick`]) the target, if its `needs_kick` is set.
//!
//! The law: after storing a pending, enabled entry, a writer sets its ready bit, then kicks the
//! target. The law applies to producers and to all other writers of entries, i.e. commands that
//! move or enable a pending LPI, and vCPUs that fold a list register. All accesses are sequentially
//! consistent, and the consumer takes the steps in reverse order: it sets `needs_kick`, then reads
//! the bitmap, then the entry. At least one of the two therefore observes the other.
//!
//! Most messages take the fast path: a flat device table and an ITT with at most one node
//! ([`Shared::find_near`]), and often to an event that is already pending. The fast path is inlined
//! and uses no stack; slower cases are in separate functions, from which a
//! message does not return to the fast path.

use super::LpiCore;
use super::device_table::DeviceTable;
use super::entry::Entry;
use super::entry_table::Position;
use super::itt::{EntryRef, Near};
use super::shared::Shared;
use crate::sync::Ordering;
use gic_arch::Lpi;
use msi_types::Cpu;

/// Outcome of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Injection {
    /// The LPI is pending now.
    Fresh,
    /// The LPI was already pending.
    Coalesced,
    /// No event is mapped, or the LPI must not become pending.
    Dropped,
}

/// Outcome of a message on the fast path.
pub(crate) enum Signaled {
    /// The LPI is pending now. [`LpiCore::notify`] must follow.
    Fresh(Pended),
    /// The LPI was already pending.
    Coalesced,
    /// No event is mapped, or the LPI must not become pending.
    Dropped,
    /// The fast path doesn't cover the message. [`LpiCore::signal_far`] must follow.
    Far,
}

/// An entry that a message has made pending, and whose vCPU has not been notified yet.
#[must_use]
pub(crate) struct Pended {
    written: Entry,
    position: Position,
}

impl LpiCore {
    /// Performs steps 1 and 2 of a message from a device behind an ITS, if the fast path covers it.
    /// Lock-free.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn signal(&self, device_table: &DeviceTable, device: u32, event: u32) -> Signaled {
        match self.shared.find_near(device_table, device, event) {
            Near::Entry(found) => match self.shared.set_pending(found) {
                Some(seen) if seen.is_pending() => Signaled::Coalesced,
                Some(seen) => {
                    let written = seen.with_pending(true);
                    Signaled::Fresh(Pended { written, position: found.position })
                }
                None => Signaled::Dropped,
            },
            Near::Nothing => Signaled::Dropped,
            Near::Far => Signaled::Far,
        }
    }

    /// Performs step 1 of a message alone, if the fast path covers it. Lock-free.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn find(
        &self,
        device_table: &DeviceTable,
        device: u32,
        event: u32,
    ) -> Option<EntryRef> {
        match self.shared.find_near(device_table, device, event) {
            Near::Entry(found) => Some(found),
            Near::Nothing | Near::Far => None,
        }
    }

    /// Injects a message that the fast path doesn't cover.
    #[inline(never)]
    pub(crate) fn signal_far(
        &self,
        device_table: &DeviceTable,
        device: u32,
        event: u32,
    ) -> Injection {
        let found = self.shared.find(device_table, device, event);
        let written = found.and_then(|found| Some((found, self.shared.set_pending(found)?)));
        match written {
            Some((_, seen)) if seen.is_pending() => Injection::Coalesced,
            Some((found, seen)) => {
                self.notify(Pended { written: seen.with_pending(true), position: found.position })
            }
            None => Injection::Dropped,
        }
    }

    /// Injects an LPI for a `GICR_SETLPIR` write. Lock-free.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn set_lpi(&self, cpu: Cpu, lpi: Lpi) -> Injection {
        match self.shared.set_own_pending(cpu.get(), lpi.index()) {
            Some(seen) if seen.is_pending() => Injection::Coalesced,
            Some(seen) => {
                let position = self.shared.own_position(lpi.index());
                self.notify(Pended { written: seen.with_pending(true), position })
            }
            None => Injection::Dropped,
        }
    }

    /// Performs steps 3 and 4 for an entry written by a message.
    #[inline(never)]
    pub(crate) fn notify(&self, Pended { written, position }: Pended) -> Injection {
        if let Some(vcpu) = self.shared.set_ready_bit(written, position) {
            self.kick(vcpu);
        }
        Injection::Fresh
    }

    /// Step 4: kicks the vCPU if it is in WFI or in guest mode. Callers must not hold any locks.
    #[inline]
    pub(super) fn kick(&self, vcpu: u32) {
        self.wakeup.kick(Cpu::new(vcpu));
    }
}

impl Shared {
    /// Step 1: finds the entry for a device's event.
    pub(super) fn find(
        &self,
        device_table: &DeviceTable,
        device: u32,
        event: u32,
    ) -> Option<EntryRef> {
        let dte = device_table.get(device)?;
        let found = self.nodes.translate(dte, event)?;
        device_table.leads_to(device, dte).then_some(found)
    }

    /// Finds the entry like [`find`](Self::find), but only if the fast path covers it.
    #[inline(always)]
    fn find_near(&self, device_table: &DeviceTable, device: u32, event: u32) -> Near {
        match device_table.get_flat(device) {
            Some(dte) => self.nodes.translate_near(dte, event),
            None => Near::Far,
        }
    }

    /// Step 2: sets an entry pending. Returns the previous value, or `None` if the entry may not
    /// become pending.
    #[inline(always)]
    pub(super) fn set_pending(&self, found: EntryRef) -> Option<Entry> {
        let atomic = self.entries.entry(found.position)?;
        let mut seen = Entry::from_bits(atomic.load(Ordering::SeqCst));
        loop {
            if !seen.admits(found.generation) {
                return None;
            }
            let pending = seen.with_pending(true).bits();
            // Write even if P is already set. The acknowledging vCPU must observe the sender's
            // writes before this message, and only a read-modify-write guarantees that.
            match atomic.compare_exchange(seen.bits(), pending, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => return Some(seen),
                Err(now) => seen = Entry::from_bits(now),
            }
        }
    }

    /// Step 2 for a redistributor's own LPI, by index. As for an event's message, writes even if P
    /// is already set.
    #[inline]
    pub(super) fn set_own_pending(&self, vcpu: u32, index: u32) -> Option<Entry> {
        let pend = |entry: Entry| entry.is_deliverable().then(|| entry.with_pending(true));
        self.own(vcpu)?.try_update(index, pend)
    }

    /// Step 3: sets the ready bit of an entry that was just written, if the entry is ready. Returns
    /// the vCPU to kick.
    #[inline]
    pub(super) fn set_ready_bit(&self, written: Entry, position: Position) -> Option<u32> {
        let target = written.target();
        if !written.is_ready() {
            // Only the vCPU can determine whether the guest has acknowledged an interrupt in a list
            // register, so the vCPU must exit.
            let waits = written.is_listed() && written.is_pending();
            return waits.then_some(target);
        }
        self.ready.get(target as usize)?.set(written.level(), position);
        Some(target)
    }
}
