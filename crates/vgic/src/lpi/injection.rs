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
//! Most messages take the fast path: a flat device table, an ITT without nodes
//! ([`Link::near_entry`]), and an entry that no other thread writes at this moment. The fast path
//! is inlined and uses hardly any stack; slower cases are in separate functions, from which a
//! message does not return to the fast path.

use super::LpiCore;
use super::device_table::DeviceTable;
use super::entry::Entry;
use super::entry_table::Position;
use super::itt::{EntryRef, Link};
use super::shared::Shared;
use crate::sync::{AtomicU64, Ordering};
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

/// Outcome of the first steps of a message.
pub(crate) enum Signaled {
    /// The LPI is pending now. [`LpiCore::notify`] must follow.
    Fresh(Pended),
    /// The LPI was already pending.
    Coalesced,
    /// No event is mapped, or the LPI must not become pending.
    Dropped,
}

/// Step that must follow if the fast path doesn't cover a message.
pub(crate) enum NextStep<'a> {
    /// [`LpiCore::signal_by_node`].
    ByNode(NodeLink<'a>),
    /// [`LpiCore::signal_far`].
    Far,
}

/// A device's entry in a flat table, and the link in it, which has one node.
pub(crate) struct NodeLink<'a>(&'a AtomicU64, Link);

/// An entry that a message has made pending, and whose vCPU has not been notified yet.
#[must_use]
pub(crate) struct Pended {
    written: Entry,
    position: Position,
}

impl Signaled {
    /// Returns the outcome for an entry that was `seen` before it was set pending.
    #[inline(always)]
    fn pended(found: EntryRef, seen: Entry) -> Self {
        if seen.is_pending() {
            return Self::Coalesced;
        }
        Self::Fresh(Pended { written: seen.with_pending(true), position: found.position })
    }
}

impl LpiCore {
    /// Performs steps 1 and 2 of a message from a device behind an ITS, if the fast path covers it.
    /// Lock-free.
    ///
    /// Context: any.
    #[inline(always)]
    pub(crate) fn signal<'a>(
        &self,
        device_table: &'a DeviceTable,
        device: u32,
        event: u32,
    ) -> Result<Signaled, NextStep<'a>> {
        let dte = device_table.get_flat(device).ok_or(NextStep::Far)?;
        let link = Link::from_bits(dte.load(Ordering::SeqCst));
        match link.near_entry(event) {
            Some(found) => self.signal_found(found).ok_or(NextStep::Far),
            None if link.has_one_node() => Err(NextStep::ByNode(NodeLink(dte, link))),
            None if link.is_valid() => Err(NextStep::Far),
            None => Ok(Signaled::Dropped),
        }
    }

    /// Performs step 1 of a message alone, if the fast path covers it. Lock-free.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn find(device_table: &DeviceTable, device: u32, event: u32) -> Option<EntryRef> {
        Link::from_bits(device_table.get_flat(device)?.load(Ordering::SeqCst)).near_entry(event)
    }

    /// Performs steps 1 and 2 of a message that the fast path doesn't cover, if there is only one
    /// node above the entry. After `None`, [`signal_far`](Self::signal_far) must follow.
    #[inline(always)]
    pub(crate) fn signal_by_node(
        &self,
        NodeLink(dte, link): NodeLink<'_>,
        event: u32,
    ) -> Option<Signaled> {
        self.signal_found(self.shared.nodes.translate_by_node(dte, link, event)?)
    }

    /// Performs steps 1 and 2 of any message.
    #[inline]
    pub(crate) fn signal_far(
        &self,
        device_table: &DeviceTable,
        device: u32,
        event: u32,
    ) -> Signaled {
        let found = self.shared.find(device_table, device, event);
        let pended = found.and_then(|found| Some((found, self.shared.set_pending(found)?)));
        pended.map_or(Signaled::Dropped, |(found, seen)| Signaled::pended(found, seen))
    }

    /// Performs step 2 for an entry, unless another thread changes it at the same time.
    #[inline(always)]
    fn signal_found(&self, found: EntryRef) -> Option<Signaled> {
        match self.shared.try_set_pending(found) {
            Some(seen) => Some(Signaled::pended(found, seen.ok()?)),
            None => Some(Signaled::Dropped),
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
    #[inline(always)]
    pub(crate) fn notify(&self, Pended { written, position }: Pended) -> Injection {
        if let Some(bitmap) = self.shared.ready.get(written.target() as usize)
            && written.is_ready()
            && bitmap.set_in_leaf(written.level(), position)
        {
            if bitmap.word.needs_kick() {
                self.kick_target(written);
            }
            return Injection::Fresh;
        }
        self.notify_slowly(written, position)
    }

    /// Performs steps 3 and 4 for an entry that isn't ready, or the rest of them if the entry's
    /// leaf isn't linked.
    #[cold]
    #[inline(never)]
    fn notify_slowly(&self, written: Entry, position: Position) -> Injection {
        let Some(bitmap) = self.shared.ready.get(written.target() as usize) else {
            return Injection::Dropped;
        };
        if written.is_ready() {
            bitmap.link(written.level(), position);
            self.kick_target(written);
        } else if let Some(vcpu) = self.shared.set_ready_bit(written, position) {
            self.kick(vcpu);
        }
        Injection::Fresh
    }

    /// Step 4 for a target that was found to need it.
    #[cold]
    #[inline(never)]
    fn kick_target(&self, written: Entry) {
        self.kick(written.target());
    }

    /// Step 4: kicks the vCPU if it is in WFI or in guest mode. Callers must not hold any locks.
    #[inline]
    pub(super) fn kick(&self, vcpu: u32) {
        self.wakeup.kick(Cpu::new(vcpu));
    }
}

impl Shared {
    /// Step 1: finds the entry for a device's event.
    #[inline(never)]
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

    /// Step 2: sets an entry pending. Returns the previous value, or `None` if the entry may not
    /// become pending.
    #[inline(always)]
    pub(super) fn set_pending(&self, found: EntryRef) -> Option<Entry> {
        loop {
            if let Ok(seen) = self.try_set_pending(found)? {
                return Some(seen);
            }
        }
    }

    /// Step 2, once. Returns an error if another thread has changed the entry in the meantime.
    #[inline(always)]
    fn try_set_pending(&self, found: EntryRef) -> Option<Result<Entry, u64>> {
        let atomic = self.entries.entry(found.position)?;
        let seen = Entry::from_bits(atomic.load(Ordering::SeqCst));
        if !seen.admits(found.link.bits()) {
            return None;
        }
        let pending = seen.with_pending(true).bits();
        // Write even if P is already set. The acknowledging vCPU must observe the sender's writes
        // before this message, and only a read-modify-write guarantees that.
        let order = (Ordering::SeqCst, Ordering::SeqCst);
        Some(atomic.compare_exchange(seen.bits(), pending, order.0, order.1).map(|_| seen))
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
    #[inline(always)]
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
