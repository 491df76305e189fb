//! The redistributors' part: `EnableLPIs`, invalidation, and LPIs that are pending at a redistributor by themselves.

use super::control::{Control, Settings};
use super::directory::{CHUNK_SLOTS, Place};
use super::knocks::{Knocks, Leaf};
use super::pool::{Cold, Owner};
use super::slots::Slot;
use super::sweeps::{Cause, Closing, Meant, Sweep};
use super::tables::{LpiTables, PendingBits};
use super::word::{Gate, LPI_INDEX_BITS, Word};
use crate::events::FaultReason;
use crate::safeguard::Safeguard;
#[cfg(test)]
use alloc::collections::BTreeSet;
#[cfg(test)]
use alloc::vec::Vec;
use gic_arch::{Lpi, gicr};

impl Control {
    /// `GICR_CTLR.EnableLPIs` 0 → 1: when its sweep is done ([`is_enabling`](Self::is_enabling)), messages are taken, and
    /// what the pending table says is pending.
    pub(crate) fn enable_lpis(&mut self, vcpu: u32, propbaser: gicr::Propbaser, pendbaser: gicr::Pendbaser) {
        let tables = LpiTables::new(propbaser, pendbaser, self.config.id_bits);
        match self.redistributors.get_mut(vcpu as usize) {
            Some(place @ None) => *place = Some(tables),
            _ => return,
        }
        self.open_doorbell(vcpu, &tables);
        let pending = self.load_pending(&tables, pendbaser);
        let cursor = self.all_chunks();
        self.start(Cause::Enable(vcpu), Sweep::Enable { cursor, vcpu, tables, pending, next: 0 });
    }

    /// Has `EnableLPIs` been set, and does that not hold for every LPI yet?
    pub(crate) fn is_enabling(&self, vcpu: u32) -> bool {
        self.is_sweeping(Cause::Enable(vcpu))
    }

    fn load_pending(&self, tables: &LpiTables, pendbaser: gicr::Pendbaser) -> PendingBits {
        if pendbaser.pending_table_zero() {
            return tables.no_pending();
        }
        tables.read_pending(&*self.memory).unwrap_or_else(|fault| {
            self.record(FaultReason::LpiTable, fault.address, 0);
            tables.no_pending()
        })
    }

    /// `GICR_CTLR.EnableLPIs` 1 → 0: when its sweep is done ([`is_disabling`](Self::is_disabling)), nothing becomes
    /// pending here any more, and what was pending is in the pending table.
    pub(crate) fn disable_lpis(&mut self, vcpu: u32) {
        self.close_doorbell(vcpu);
        let Some(tables) = self.redistributors.get_mut(vcpu as usize).and_then(Option::take) else { return };
        self.abandon(Cause::Invalidate(vcpu));
        let pending = match self.abandon(Cause::Enable(vcpu)) {
            // What the pending table said and no slot has taken yet.
            Some(Sweep::Enable { pending, next, .. }) => pending.from(next),
            _ => tables.no_pending(),
        };
        let (cursor, closing) = (self.all_chunks(), self.close_own(vcpu));
        self.start(Cause::Disable(vcpu), Sweep::Disable { cursor, vcpu, tables, pending, closing });
    }

    /// Has `EnableLPIs` been cleared, and what was pending not yet gone into the pending table?
    pub(crate) fn is_disabling(&self, vcpu: u32) -> bool {
        self.is_sweeping(Cause::Disable(vcpu))
    }

    /// All redistributors are reset: what was pending is gone. In one go.
    pub(super) fn reset_lpis(&mut self) {
        self.shared.knocks.iter().for_each(Knocks::close);
        self.sweep(|control, slot, cold| {
            let (old, _) = control.shared.slots.update(slot.position(), stopped);
            control.recall(old);
            control.pool.set_cold(slot, Cold { held: false, ..cold });
        });
        for vcpu in (0..).take(self.redistributors.len()) {
            self.reset_redistributor(vcpu);
        }
    }

    fn reset_redistributor(&mut self, vcpu: u32) {
        if let Some(place) = self.redistributors.get_mut(vcpu as usize) {
            *place = None;
        }
        self.abandon(Cause::Invalidate(vcpu));
        self.abandon(Cause::Enable(vcpu));
        let disabled = match self.abandon(Cause::Disable(vcpu)) {
            Some(Sweep::Disable { closing, .. }) => closing,
            _ => Closing::default(),
        };
        for mut closing in [disabled, self.close_own(vcpu)] {
            self.close_on(&mut closing, u64::MAX);
        }
    }

    /// The redistributor has no slots of its own any more; those that it had are left to close.
    fn close_own(&mut self, vcpu: u32) -> Closing {
        if let Some(chunks) = self.own_chunks.get_mut(vcpu as usize) {
            *chunks = 0;
        }
        let shared = self.shared.clone();
        let own = shared.own.get(vcpu as usize);
        own.map_or_else(Closing::default, |own| Closing::of(Self::take_sender(own), LPI_INDEX_BITS))
    }

    /// `GICR_SETLPIR` takes LPIs from now on.
    pub(super) fn open_doorbell(&self, vcpu: u32, tables: &LpiTables) {
        if let Some(knocks) = self.shared.knocks.get(vcpu as usize) {
            knocks.open(tables.end());
        }
    }

    /// `GICR_SETLPIR` takes no LPIs any more, and those that it took are pending.
    fn close_doorbell(&mut self, vcpu: u32) {
        if let Some(knocks) = self.shared.knocks.get(vcpu as usize) {
            knocks.close();
        }
        self.admit_all(vcpu);
    }

    /// What was rung at a redistributor is pending there.
    pub(crate) fn admit_all(&mut self, vcpu: u32) {
        let shared = self.shared.clone();
        let knocks = shared.knocks.get(vcpu as usize);
        for leaf in knocks.into_iter().flat_map(Knocks::leaves) {
            if self.admit(vcpu, leaf) {
                self.owe_notification(vcpu);
            }
        }
    }

    /// As [`admit_all`](Self::admit_all), of one leaf. Is there something now that the vCPU has to look for?
    pub(super) fn admit(&mut self, vcpu: u32, leaf: Leaf) -> bool {
        let shared = self.shared.clone();
        let at = vcpu as usize;
        let Some((own, knocks)) = shared.own.get(at).zip(shared.knocks.get(at)) else { return false };
        // While LPIs are disabled, whatever is rung came too late.
        let Some(tables) = self.tables(vcpu) else { return false };
        let mut found = false;
        for lpi in knocks.take(leaf).filter(|lpi| tables.covers(*lpi)) {
            if self.attach_own(vcpu, lpi).is_some() {
                let (_, notify) = shared.inject(own, lpi.index());
                found |= notify.is_some();
            } else {
                self.record(FaultReason::Budget, 0, u64::from(lpi.get()));
            }
        }
        found
    }

    /// `GICR_CLRLPIR`. Beside it there are no events that the LPI could be pending for.
    pub(super) fn clear_lpi(&mut self, vcpu: u32, lpi: Lpi) {
        if let Some(knocks) = self.shared.knocks.get(vcpu as usize) {
            knocks.forget(lpi);
        }
        if let Some(slot) = self.own_slot(vcpu, lpi) {
            self.clear_slot(slot);
        }
    }

    /// Then what is pending is pending in redistributors' own slots.
    fn has_no_devices(&self) -> bool {
        self.translators.iter().all(|translator| translator.devices.is_empty())
    }

    /// The LPIs that are pending here, in ascending order.
    #[cfg(test)]
    pub(super) fn pending(&mut self, vcpu: u32) -> Vec<Lpi> {
        self.admit_all(vcpu);
        let mut found = BTreeSet::new();
        self.sweep(|control, slot, cold| {
            let word = control.shared.slots.load(slot.position());
            if word.target() == vcpu && (word.is_pending() || cold.held) {
                found.insert(word.lpi());
            }
        });
        found.into_iter().collect()
    }

    /// `GICR_INVLPIR`: takes one LPI's configuration from memory again. Complete when its sweep is
    /// ([`is_invalidating`](Self::is_invalidating)).
    pub(super) fn invalidate(&mut self, vcpu: u32, lpi: Lpi) {
        match self.own_slot(vcpu, lpi) {
            Some(slot) => self.refresh(slot, Settings::Reload),
            None => self.make_room(vcpu, lpi),
        }
        if self.has_no_devices() {
            return;
        }
        // One after the other would be as many sweeps; one for all of them is enough.
        let meant = if self.is_invalidating(vcpu) { Meant::Target(vcpu) } else { Meant::Lpi(vcpu, lpi) };
        self.start_refresh(Cause::Invalidate(vcpu), meant, Settings::Reload);
    }

    /// An LPI was invalidated where it has no slot. If it is enabled there, it will be rung there: only this names both
    /// the LPI and the place, the configuration table is everybody's. Half of the room is left to what is rung.
    fn make_room(&mut self, vcpu: u32, lpi: Lpi) {
        let Some(tables) = self.tables(vcpu).filter(|tables| self.config.direct && tables.covers(lpi)) else {
            return;
        };
        let (enabled, _) = self.settings(&tables, lpi);
        if enabled && self.own_chunks_in_use() < self.config.own_chunks() / 2 {
            self.attach_own(vcpu, lpi);
        }
    }

    /// `GICR_INVALLR`: takes every LPI's configuration from memory again. Complete when its sweep is.
    pub(crate) fn invalidate_all(&mut self, vcpu: u32) {
        self.start_refresh(Cause::Invalidate(vcpu), Meant::Target(vcpu), Settings::Reload);
    }

    /// Is an invalidation by a register not complete?
    pub(crate) fn is_invalidating(&self, vcpu: u32) -> bool {
        self.is_sweeping(Cause::Invalidate(vcpu))
    }

    /// One slot's part of MOVALL.
    pub(super) fn move_if_pending(&mut self, slot: Slot, cold: Cold, from: u32, to: u32) {
        let word = self.shared.slots.load(slot.position());
        if word.target() == from && (word.is_pending_anywhere() || cold.held) {
            self.move_pending(slot, to, word.lpi());
        }
    }

    /// Moves one pending LPI. If there is no slot for it at the new place, it stays where it is: not lost.
    fn move_pending(&mut self, slot: Slot, to: u32, lpi: Lpi) {
        let Some(new) = self.attach_own(to, lpi) else {
            self.record(FaultReason::Budget, 0, u64::from(lpi.get()));
            return;
        };
        if self.clear_slot(slot) {
            self.pend_slot(new);
        }
    }

    /// Makes an LPI pending at a redistributor itself. `false`: the budget is used up.
    pub(super) fn pend_at(&mut self, vcpu: u32, lpi: Lpi) -> bool {
        match self.attach_own(vcpu, lpi) {
            Some(slot) => {
                self.pend_slot(slot);
                true
            }
            None => false,
        }
    }

    /// The redistributor's own slot of an LPI, if it has one.
    pub(super) fn own_slot(&self, vcpu: u32, lpi: Lpi) -> Option<Slot> {
        self.own_place(vcpu, lpi).map(|place| place.slot)
    }

    fn own_place(&self, vcpu: u32, lpi: Lpi) -> Option<Place> {
        let own = self.shared.own.get(vcpu as usize)?;
        self.find(own, lpi.index())
    }

    fn own_chunks_in_use(&self) -> u32 {
        self.own_chunks.iter().sum()
    }

    fn attach_own(&mut self, vcpu: u32, lpi: Lpi) -> Option<Slot> {
        self.attach_own_place(vcpu, lpi).map(|place| place.slot)
    }

    /// The redistributor's own place of an LPI, taken from the pool if need be.
    pub(super) fn attach_own_place(&mut self, vcpu: u32, lpi: Lpi) -> Option<Place> {
        if let Some(place) = self.own_place(vcpu, lpi) {
            return Some(place);
        }
        let room = self.own_chunks_in_use() < self.config.own_chunks();
        let owner = u16::try_from(vcpu).ok().filter(|_| room)?;
        let shared = self.shared.clone();
        let own = shared.own.get(vcpu as usize)?;
        let first = lpi.index() & !(CHUNK_SLOTS - 1);
        let place = self.attach(own, LPI_INDEX_BITS, first)?;
        if let Some(chunks) = self.own_chunks.get_mut(vcpu as usize) {
            *chunks += 1;
        }
        for at in 0..CHUNK_SLOTS {
            let slot = place.slot.offset(at);
            let word = Word::unmapped(place.generation).with_target(vcpu).with_lpi_index(first + at);
            self.shared.slots.update(slot.position(), |_| word);
            self.pool.set_cold(slot, Cold { owner: Owner::Redistributor(owner), held: false });
            self.refresh(slot, Settings::Reload);
        }
        self.own_place(vcpu, lpi)
    }
}

/// A word of a redistributor whose LPIs are disabled.
pub(super) fn stopped(word: Word) -> Word {
    let closes = word.is_deliverable() && Safeguard::SweepOnDisable.stands();
    word.cleared().with_gate(if closes { Gate::Closed } else { word.gate() })
}
