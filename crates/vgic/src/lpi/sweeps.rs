//! Work that goes through many slots, done a piece at a time: no access of a guest's takes longer than a budget,
//! however much is mapped.
//!
//! A sweep starts when its cause has already changed the state ([`Control`]); what it has still to do is to bring the
//! words of slots in line, one chunk after the other. [`Control::refresh`] makes a word from the state as it is at that
//! moment, so that sweeps and commands may interleave: a slot that a command touches meanwhile is up to date, and is
//! made so again. What a guest waits for – a command is consumed, `GICR_CTLR.RWP`, `GICR_SYNCR.Busy`,
//! `GITS_CTLR.Quiescent` – tells it when the sweep is done.
//!
//! Nothing tells it when LPIs or an ITS are *enabled*: from that write on messages must arrive. So
//! the write goes on until its sweep is done, a piece at a time with the command lock released in
//! between, or the vCPU repeats it. The register reads as disabled until then. A message that comes
//! meanwhile is taken if its slot was reached, and otherwise came before.

use super::control::{Control, Settings};
use super::directory::{CHUNK_BITS, Entry, depth};
use super::mappings::{ItsIndex, MappedDevice};
use super::own::{BLOCK, LpiBlock};
use super::pool::Owner;
use super::shared::Location;
use super::slots::Slot;
use super::tables::{LpiTables, PendingBits};
use crate::events::FaultReason;
use crate::memory::MemoryFault;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use gic_arch::Lpi;

/// What a sweep is for. There is one at a time for each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Cause {
    /// A device table was taken away: its devices are unmapped.
    Teardown(ItsIndex),
    /// An ITS was disabled, or lost its collections.
    Resettle(ItsIndex),
    /// An ITS was enabled.
    Admit(ItsIndex),
    /// A command of an ITS.
    Command(ItsIndex),
    /// `GICR_CTLR.EnableLPIs` of a vCPU's redistributor was set.
    Enable(u32),
    /// It was cleared.
    Disable(u32),
    /// `GICR_INVLPIR` or `GICR_INVALLR` of a vCPU's redistributor.
    Invalidate(u32),
}

impl Cause {
    pub(super) const fn is_commands(self) -> bool {
        matches!(self, Self::Command(_))
    }
}

/// The chunks that a sweep has still to visit: those that were in use when it began. Later ones were filled from the
/// state as it is.
pub(super) struct Cursor {
    next: u32,
    end: u32,
}

/// The own LPIs of a redistributor that a sweep has still to visit.
pub(super) struct OwnCursor {
    /// The index of the first one.
    next: u32,
    /// Was a table found that cannot be read? One fault is recorded for all of it.
    is_unreadable: bool,
}

impl OwnCursor {
    /// All are still to be visited.
    pub(super) const START: Self = Self { next: 0, is_unreadable: false };
}

/// Work in progress.
pub(super) enum Sweep {
    /// Words are refreshed.
    Refresh { cursor: Cursor, own: OwnCursor, meant: Meant, settings: Settings },
    /// MOVALL.
    MoveAll { cursor: Cursor, own: OwnCursor, from: u32, to: u32 },
    /// Devices are unmapped, and slots taken back.
    Unmap { its: ItsIndex, devices: BTreeMap<u32, MappedDevice>, closing: Closing },
    /// What the pending table says becomes pending; `next` is the first LPI index that was not looked at.
    Enable { cursor: Cursor, own: OwnCursor, vcpu: u32, pending: PendingBits, next: u32 },
    /// What is pending goes into the pending table.
    Disable { cursor: Cursor, own: OwnCursor, vcpu: u32, tables: LpiTables, pending: PendingBits },
}

/// Which slots a sweep is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Meant {
    /// Events of an ITS.
    Its(u16),
    /// Events of a collection.
    Collection { its: u16, collection: u16 },
    /// What targets a vCPU.
    Target(u32),
    /// One LPI of a vCPU.
    Lpi(u32, Lpi),
}

/// Entries whose slots are taken back: each with the number of nodes below it, and the size of its blocks.
#[derive(Default)]
pub(super) struct Closing(Vec<(Entry, u32, u32)>);

impl Closing {
    /// What a sender's entry led to.
    pub(super) fn of(root: Entry, event_bits: u32) -> Self {
        let mut closing = Self::default();
        if root.is_valid() {
            closing.push(root, depth(event_bits), event_bits.min(CHUNK_BITS));
        }
        closing
    }

    /// Adds an entry with `depth` nodes below it and blocks of `2^size` slots.
    pub(super) fn push(&mut self, entry: Entry, depth: u32, size: u32) {
        self.0.push((entry, depth, size));
    }
}

impl Control {
    /// All chunks that are in use.
    pub(super) fn all_chunks(&self) -> Cursor {
        Cursor { next: 0, end: self.pool.chunk_count() }
    }

    /// Starts a sweep. One for the same cause is replaced: the new one covers it. Only a command's would not be; its
    /// ITS waits with the next command, and whoever does not has the last one finished first.
    pub(super) fn start(&mut self, cause: Cause, sweep: Sweep) {
        if cause.is_commands() {
            self.advance(cause, u64::MAX);
        }
        self.sweeps.insert(cause, sweep);
    }

    /// Starts to refresh words.
    pub(super) fn start_refresh(&mut self, cause: Cause, meant: Meant, settings: Settings) {
        let cursor = self.all_chunks();
        self.start(cause, Sweep::Refresh { cursor, own: OwnCursor::START, meant, settings });
    }

    /// Gives a sweep up: what is left of it.
    pub(super) fn abandon(&mut self, cause: Cause) -> Option<Sweep> {
        self.sweeps.remove(&cause)
    }

    /// Is a sweep for this cause going on?
    pub(super) fn is_sweeping(&self, cause: Cause) -> bool {
        self.sweeps.contains_key(&cause)
    }

    /// Goes on with a sweep until it is done, or [`work`](Self::work) reaches `limit`. Is it done?
    pub(super) fn advance(&mut self, cause: Cause, limit: u64) -> bool {
        let Some(mut sweep) = self.sweeps.remove(&cause) else { return true };
        let done = self.sweep_on(&mut sweep, limit);
        if done {
            self.finish_with(sweep);
        } else {
            self.sweeps.insert(cause, sweep);
        }
        done
    }

    /// Goes on with the sweeps of registers, of any redistributor and ITS. Are they done?
    pub(crate) fn advance_registers(&mut self, limit: u64) -> bool {
        self.advance_all(limit, |cause| !cause.is_commands())
    }

    /// Finishes every sweep, in one go.
    pub(crate) fn finish_sweeps(&mut self) {
        self.advance_all(u64::MAX, |_| true);
        self.note_registers();
    }

    fn advance_all(&mut self, limit: u64, is_meant: impl Fn(Cause) -> bool) -> bool {
        while let Some(cause) = self.sweeps.keys().copied().find(|cause| is_meant(*cause)) {
            if !self.advance(cause, limit) {
                return false;
            }
        }
        true
    }

    fn sweep_on(&mut self, sweep: &mut Sweep, limit: u64) -> bool {
        match sweep {
            Sweep::Refresh { cursor, own, meant, settings } => {
                self.visit(cursor, limit, |control, slot, owner| {
                    if control.is_meant(*meant, slot, owner) {
                        control.refresh(Location::Slot(slot), *settings);
                    }
                }) && match *meant {
                    Meant::Target(vcpu) => {
                        self.visit_own(vcpu, own, limit, |control, block| control.reload_own(vcpu, block))
                    }
                    Meant::Its(_) | Meant::Collection { .. } | Meant::Lpi(..) => true,
                }
            }
            Sweep::MoveAll { cursor, own, from, to } => {
                let each = |control: &mut Self, location| control.move_if_pending(location, *from, *to);
                self.visit(cursor, limit, |control, slot, _| each(control, Location::Slot(slot)))
                    && self.visit_own(*from, own, limit, |control, block| {
                        block.indices().for_each(|index| each(control, Location::Own { vcpu: *from, index }));
                        Ok(())
                    })
            }
            Sweep::Unmap { its, devices, closing } => self.unmap_on(*its, devices, closing, limit),
            Sweep::Enable { cursor, own, vcpu, pending, next } => {
                self.visit(cursor, limit, |control, slot, _| control.enable_slot(slot, *vcpu, pending))
                    && self.visit_own(*vcpu, own, limit, |control, block| {
                        control.enable_own(*vcpu, block, pending)
                    })
                    && self.pend_rest(*vcpu, pending, next, limit)
            }
            Sweep::Disable { cursor, own, vcpu, pending, .. } => {
                let mut each = |control: &mut Self, location| control.disable_word(location, *vcpu, pending);
                self.visit(cursor, limit, |control, slot, _| each(control, Location::Slot(slot)))
                    && self.visit_own(*vcpu, own, limit, |control, block| {
                        block.indices().for_each(|index| each(control, Location::Own { vcpu: *vcpu, index }));
                        Ok(())
                    })
            }
        }
    }

    fn finish_with(&mut self, sweep: Sweep) {
        if let Sweep::Disable { tables, pending, .. } = sweep
            && let Err(fault) = tables.write_pending(&pending, &*self.memory)
        {
            self.record(FaultReason::LpiTable, fault.address, 0);
        }
    }

    /// Visits the slots that somebody owns, chunk by chunk.
    fn visit(
        &mut self,
        cursor: &mut Cursor,
        limit: u64,
        mut each: impl FnMut(&mut Self, Slot, Owner),
    ) -> bool {
        while cursor.next < cursor.end {
            if self.work() >= limit {
                return false;
            }
            self.count_work(1);
            for (slot, owner) in self.pool.owned_slots(cursor.next) {
                self.count_work(1);
                each(self, slot, owner);
            }
            cursor.next += 1;
        }
        true
    }

    /// Visits a redistributor's own LPIs, block by block.
    pub(super) fn visit_own(
        &mut self,
        vcpu: u32,
        cursor: &mut OwnCursor,
        limit: u64,
        mut each: impl FnMut(&mut Self, LpiBlock) -> Result<(), MemoryFault>,
    ) -> bool {
        let shared = self.shared.clone();
        while let Some(block) = shared.own(vcpu).and_then(|own| own.block_from(cursor.next)) {
            if self.work() >= limit {
                return false;
            }
            self.count_work(BLOCK);
            if let Err(fault) = each(self, block)
                && !core::mem::replace(&mut cursor.is_unreadable, true)
            {
                self.record(FaultReason::LpiTable, fault.address, 0);
            }
            cursor.next = block.next();
        }
        true
    }

    fn is_meant(&self, meant: Meant, slot: Slot, owner: Owner) -> bool {
        let word = || self.shared.load(Location::Slot(slot));
        match (meant, owner) {
            (Meant::Its(its), Owner::Event { its: of, .. }) => its == of,
            (Meant::Collection { its, collection }, owner) => owner == Owner::Event { its, collection },
            (Meant::Target(vcpu), _) => word().target() == vcpu,
            (Meant::Lpi(vcpu, lpi), _) => word().target() == vcpu && word().lpi() == lpi,
            (Meant::Its(_), Owner::Nobody) => false,
        }
    }

    fn unmap_on(
        &mut self,
        its: ItsIndex,
        devices: &mut BTreeMap<u32, MappedDevice>,
        closing: &mut Closing,
        limit: u64,
    ) -> bool {
        loop {
            if !self.close_on(closing, limit) {
                return false;
            }
            let Some((device, mapped)) = devices.pop_first() else { return true };
            self.count_work(1);
            if let Some(translator) = self.translator_mut(its) {
                *closing = translator.close_device(device, mapped);
            }
        }
    }

    pub(super) fn close_on(&mut self, closing: &mut Closing, limit: u64) -> bool {
        while self.work() < limit {
            let Some((entry, depth, size)) = closing.0.pop() else { return true };
            self.close(entry, depth, size, closing);
        }
        closing.0.is_empty()
    }

    fn enable_slot(&mut self, slot: Slot, vcpu: u32, pending: &mut PendingBits) {
        let location = Location::Slot(slot);
        let word = self.shared.load(location);
        if word.target() == vcpu {
            if pending.take(word.lpi()) {
                self.shared.update(location, |word| word.with_held(true));
            }
            self.refresh(location, Settings::Reload);
        }
    }

    fn enable_own(
        &mut self,
        vcpu: u32,
        block: LpiBlock,
        pending: &mut PendingBits,
    ) -> Result<(), MemoryFault> {
        for lpi in block.indices().filter_map(Lpi::from_index).filter(|lpi| pending.take(*lpi)) {
            match self.place_of(vcpu, lpi) {
                event @ Location::Slot(_) => self.pend(event),
                own @ Location::Own { .. } => _ = self.shared.update(own, |word| word.with_held(true)),
            }
        }
        self.reload_own(vcpu, block)
    }

    /// What the pending table names beside that is pending at the redistributor by itself.
    fn pend_rest(&mut self, vcpu: u32, pending: &PendingBits, next: &mut u32, limit: u64) -> bool {
        while let Some(lpi) = pending.first_from(*next) {
            if self.work() >= limit {
                return false;
            }
            self.count_work(1);
            self.pend_at(vcpu, lpi);
            *next = lpi.index() + 1;
        }
        true
    }

    fn disable_word(&mut self, location: Location, vcpu: u32, pending: &mut PendingBits) {
        if self.shared.load(location).target() == vcpu {
            let (old, _) = self.shared.update(location, super::redistributor::stopped);
            self.recall(old);
            if old.is_pending_anywhere() {
                pending.set(old.lpi());
            }
        }
    }
}
