//! The redistributors' part: `EnableLPIs`, invalidation, and LPIs that are pending at a redistributor by themselves.

use super::by_lpi::MappedAt;
use super::control::{Control, Settings};
use super::own::{BLOCK, LpiBlock, OwnLpis};
use super::shared::Location;
use super::slots::Slot;
use super::sweeps::{Cause, Meant, OwnCursor, Sweep};
use super::tables::{LpiTables, PendingBits};
use super::word::Word;
use crate::events::FaultReason;
use crate::memory::MemoryFault;
use crate::safeguard::Safeguard;
#[cfg(test)]
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use gic_arch::lpi::Config;
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
        self.provide_own(vcpu, &tables);
        let pending = self.load_pending(&tables, pendbaser);
        let (cursor, own) = (self.all_chunks(), OwnCursor::START);
        self.start(Cause::Enable(vcpu), Sweep::Enable { cursor, own, vcpu, pending, next: 0 });
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
        let Some(tables) = self.redistributors.get_mut(vcpu as usize).and_then(Option::take) else { return };
        self.abandon(Cause::Invalidate(vcpu));
        let pending = match self.abandon(Cause::Enable(vcpu)) {
            // What the pending table said and no slot has taken yet.
            Some(Sweep::Enable { pending, next, .. }) => pending.from(next),
            _ => tables.no_pending(),
        };
        let (cursor, own) = (self.all_chunks(), OwnCursor::START);
        self.start(Cause::Disable(vcpu), Sweep::Disable { cursor, own, vcpu, tables, pending });
    }

    /// Has `EnableLPIs` been cleared, and what was pending not yet gone into the pending table?
    pub(crate) fn is_disabling(&self, vcpu: u32) -> bool {
        self.is_sweeping(Cause::Disable(vcpu))
    }

    /// All redistributors are reset: what was pending is gone. In one go.
    pub(super) fn reset_lpis(&mut self) {
        self.sweep(|control, slot| control.reset_word(Location::Slot(slot)));
        for vcpu in (0..).take(self.redistributors.len()) {
            for block in self.own_blocks(vcpu) {
                block.indices().for_each(|index| self.reset_word(Location::Own { vcpu, index }));
            }
            if let Some(place) = self.redistributors.get_mut(vcpu as usize) {
                *place = None;
            }
            for cause in [Cause::Invalidate(vcpu), Cause::Enable(vcpu), Cause::Disable(vcpu)] {
                self.abandon(cause);
            }
        }
        self.note_registers();
    }

    fn reset_word(&mut self, location: Location) {
        let (old, _) = self.shared.update(location, |word| stopped(word).with_held(false));
        self.recall(old);
    }

    /// Where the redistributor has words of its own.
    pub(super) fn own_blocks(&self, vcpu: u32) -> Vec<LpiBlock> {
        self.shared.own(vcpu).into_iter().flat_map(OwnLpis::blocks).collect()
    }

    /// With direct LPIs, every LPI of the tables has a word at the redistributor from now on.
    pub(super) fn provide_own(&self, vcpu: u32, tables: &LpiTables) {
        if let Some(own) = self.shared.own(vcpu).filter(|_| self.config.direct) {
            own.ensure_below(tables.end());
        }
    }

    /// `GICR_CLRLPIR`. Beside it there are no events that the LPI could be pending for.
    pub(super) fn clear_lpi(&mut self, vcpu: u32, lpi: Lpi) {
        if self.tables(vcpu).is_some_and(|tables| tables.covers(lpi)) {
            self.clear(Location::own(vcpu, lpi));
        }
    }

    /// The LPIs that are pending here, in ascending order.
    #[cfg(test)]
    pub(super) fn pending(&mut self, vcpu: u32) -> Vec<Lpi> {
        let mut found = BTreeSet::new();
        let is_pending = |word: Word| word.target() == vcpu && (word.is_pending() || word.is_held());
        self.sweep(|control, slot| {
            let word = control.shared.load(Location::Slot(slot));
            found.extend(is_pending(word).then(|| word.lpi()));
        });
        for index in self.own_blocks(vcpu).into_iter().flat_map(LpiBlock::indices) {
            let word = self.shared.load(Location::Own { vcpu, index });
            found.extend(is_pending(word).then(|| word.lpi()));
        }
        found.into_iter().collect()
    }

    /// `GICR_INVLPIR`: takes one LPI's configuration from memory again. Where several events are
    /// mapped to it, it is complete when its sweep is ([`is_invalidating`](Self::is_invalidating)).
    pub(super) fn invalidate(&mut self, vcpu: u32, lpi: Lpi) {
        if !self.implements(lpi) {
            return;
        }
        self.count_work(1);
        self.refresh(Location::own(vcpu, lpi), Settings::Reload);
        match self.by_lpi.find(lpi.index()) {
            MappedAt::Nowhere => {}
            MappedAt::One(slot) => self.invalidate_slot(slot, vcpu),
            MappedAt::Several => {
                // One after the other would be as many sweeps; one for all of them is enough.
                let target = Meant::Target(vcpu);
                let meant = if self.is_invalidating(vcpu) { target } else { Meant::Lpi(vcpu, lpi) };
                self.start_refresh(Cause::Invalidate(vcpu), meant, Settings::Reload);
            }
        }
    }

    fn invalidate_slot(&mut self, slot: Slot, vcpu: u32) {
        let location = Location::Slot(slot);
        if self.shared.load(location).target() == vcpu {
            self.refresh(location, Settings::Reload);
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

    /// Takes the configuration of a block of own LPIs from memory. Those that cannot be read are
    /// disabled.
    pub(super) fn reload_own(&mut self, vcpu: u32, block: LpiBlock) -> Result<(), MemoryFault> {
        let mut bytes = [0; BLOCK as usize];
        let read = match self.tables(vcpu) {
            Some(tables) => tables.read_configs(block.first(), &mut bytes, &*self.memory),
            None => Ok(()),
        };
        if read.is_err() {
            bytes = [0; BLOCK as usize];
        }
        for (index, byte) in block.indices().zip(bytes) {
            self.refresh(Location::Own { vcpu, index }, Settings::Read(Config::from_bits(byte)));
        }
        read
    }

    /// One word's part of MOVALL.
    pub(super) fn move_if_pending(&mut self, location: Location, from: u32, to: u32) {
        let word = self.shared.load(location);
        if word.target() == from && word.is_pending_or_held() && self.clear(location) {
            self.pend_at(to, word.lpi());
        }
    }

    /// Makes an LPI pending at a redistributor.
    pub(super) fn pend_at(&mut self, vcpu: u32, lpi: Lpi) {
        let location = self.place_of(vcpu, lpi);
        if let (Location::Own { .. }, Some(own)) = (location, self.shared.own(vcpu)) {
            own.ensure(lpi);
        }
        self.pend(location);
    }

    /// Where an LPI is pending at a redistributor: in the word of its event if that targets the
    /// vCPU, otherwise by itself.
    pub(super) fn place_of(&self, vcpu: u32, lpi: Lpi) -> Location {
        match self.by_lpi.find(lpi.index()).one().map(Location::Slot) {
            Some(event) if self.shared.load(event).target() == vcpu => event,
            _ => Location::own(vcpu, lpi),
        }
    }

    /// Takes what is pending at a redistributor by itself, for the word of an event that targets
    /// it. Was something?
    pub(super) fn take_own(&mut self, vcpu: u32, index: u32) -> bool {
        let own = Location::Own { vcpu, index };
        Safeguard::TakeOwn.stands() && self.shared.load(own).is_pending_or_held() && self.clear(own)
    }
}

/// A word of a redistributor whose LPIs are disabled.
pub(super) fn stopped(word: Word) -> Word {
    let closes = word.is_deliverable() && Safeguard::SweepOnDisable.stands();
    word.cleared().with_deliverable(word.is_deliverable() && !closes)
}
