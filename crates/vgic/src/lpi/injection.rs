//! The producer protocol: a message makes an LPI pending and its vCPU notice. It runs on any
//! thread, takes no lock, allocates nothing, and kicks at most once.
//!
//! 1. *Find the entry* ([`Shared::find`]): the device table entry leads to the ITT, which names the
//!    entry and the generation that it must have.
//! 2. *Set it pending* ([`Shared::set_pending`]): one exchange of the whole entry, so at that
//!    moment the event was mapped and deliverable, with that target, priority and INTID.
//! 3. *Set the ready bit* ([`Shared::set_ready_bit`]) of the entry at its target and level, if the
//!    entry is enabled: leaf, summary, top word, mask.
//! 4. *Kick* ([`kick`]) the target, if its `needs_kick` is set.
//!
//! The law: after storing a pending, enabled entry, a writer sets its ready bit, then kicks the
//! target. It binds producers, and every other writer of entries: a command that moves or enables
//! what is pending, a vCPU that folds a list register. All accesses are sequentially consistent,
//! and the consumer takes the steps in reverse order: it sets `needs_kick`, then reads the bitmap,
//! then the entry. So one of the two sees what the other did.

use super::device_table::DeviceTable;
use super::entries::Position;
use super::entry::Entry;
use super::itt::EntryRef;
use super::shared::Shared;
use crate::sync::{AtomicU64, Ordering};
use crate::wakeup::VcpuWakeup;
use gic_arch::Lpi;
use msi_types::Cpu;

/// The result of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Injection {
    /// The LPI is pending now.
    Fresh,
    /// It was pending already.
    Coalesced,
    /// Nothing is mapped there, or it may not become pending.
    Dropped,
}

/// The result of steps 1 to 3, and the vCPU to kick.
pub(super) type Injected = (Injection, Option<u32>);

const DROPPED: Injected = (Injection::Dropped, None);

impl Shared {
    /// Steps 1 to 3 for a message from a device.
    #[inline]
    pub(super) fn signal(&self, device_table: &DeviceTable, device: u32, event: u32) -> Injected {
        self.find(device_table, device, event).map_or(DROPPED, |found| self.pend(found))
    }

    /// Steps 1 to 3 for an event of the device that has this device table entry.
    #[inline]
    pub(super) fn signal_event(&self, dte: &AtomicU64, event: u32) -> Injected {
        self.nodes.translate(dte, event).map_or(DROPPED, |found| self.pend(found))
    }

    /// Steps 1 to 3 for `GICR_SETLPIR`.
    #[inline]
    pub(super) fn set_lpi(&self, vcpu: u32, lpi: Lpi) -> Injected {
        let index = lpi.index();
        // Also if P is set already, as for an event's message.
        let pend = |entry: Entry| entry.is_deliverable().then(|| entry.with_pending(true));
        match self.own(vcpu).and_then(|own| own.try_update(index, pend)) {
            None => DROPPED,
            Some(seen) if seen.is_pending() => (Injection::Coalesced, None),
            Some(seen) => {
                let kicked = self.set_ready_bit(seen.with_pending(true), self.own_position(index));
                (Injection::Fresh, kicked)
            }
        }
    }

    /// Step 1: finds the entry of a device's event.
    #[inline]
    fn find(&self, device_table: &DeviceTable, device: u32, event: u32) -> Option<EntryRef> {
        let dte = device_table.get(device)?;
        let found = self.nodes.translate(dte, event)?;
        device_table.leads_to(device, dte).then_some(found)
    }

    /// Steps 2 and 3.
    #[inline]
    fn pend(&self, found: EntryRef) -> Injected {
        let position = found.index.position();
        match self.set_pending(found, position) {
            None => DROPPED,
            Some(seen) if seen.is_pending() => (Injection::Coalesced, None),
            Some(seen) => (Injection::Fresh, self.set_ready_bit(seen.with_pending(true), position)),
        }
    }

    /// Step 2: sets an entry pending; returns what it was, `None` if it may not become pending.
    #[inline]
    fn set_pending(&self, found: EntryRef, position: Position) -> Option<Entry> {
        let atomic = self.entries.entry(position)?;
        let mut seen = Entry::from_bits(atomic.load(Ordering::SeqCst));
        loop {
            if !may_pend(seen, found) {
                return None;
            }
            let pending = seen.with_pending(true).bits();
            // Also if P is set already: only a read-modify-write orders what the sender wrote
            // before this message with the acknowledgement that is to see it.
            match atomic.compare_exchange(seen.bits(), pending, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => return Some(seen),
                Err(now) => seen = Entry::from_bits(now),
            }
        }
    }

    /// Step 3: sets the ready bit of an entry that was just written, if it is ready. Returns the
    /// vCPU to kick.
    #[inline]
    pub(super) fn set_ready_bit(&self, written: Entry, position: Position) -> Option<u32> {
        let target = written.target();
        if !written.is_ready() {
            // Only the vCPU can say whether it acknowledged an interrupt in a list register: it
            // must exit.
            let waits = written.is_listed() && written.is_pending();
            return waits.then_some(target);
        }
        self.ready.get(target as usize)?.set(written.level(), position);
        Some(target)
    }

    /// Is a device's event mapped, to a collection that is? Then a message for it is dropped only
    /// while it is disabled.
    pub(super) fn is_mapped(&self, device_table: &DeviceTable, device: u32, event: u32) -> bool {
        self.find(device_table, device, event).is_some_and(|found| {
            let entry = self.entries.load(found.index.position());
            entry.generation() == found.generation && entry.is_mapped()
        })
    }
}

#[inline]
fn may_pend(seen: Entry, found: EntryRef) -> bool {
    seen.is_deliverable() && seen.generation() == found.generation
}

/// Step 4: kicks the vCPU that must notice, if it left. For callers that hold no locks.
#[inline]
pub(super) fn kick(wakeup: &VcpuWakeup, (injection, vcpu): Injected) -> Injection {
    if let Some(vcpu) = vcpu {
        wakeup.kick(Cpu::new(vcpu));
    }
    injection
}
