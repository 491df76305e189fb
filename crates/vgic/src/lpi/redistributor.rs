//! The redistributors' side of the command core: `EnableLPIs`, invalidation, and LPIs that are
//! pending at a redistributor without an event.

use super::command_state::Refresh;
use super::control::Control;
use super::entry::Entry;
use super::entry_table::EntryIndex;
use super::redistributor_lpis::{BLOCK, LpiBlock, RedistributorLpis};
use super::shared::Location;
use super::sweep::{Cause, LpiChange, OwnCursor, Pause, Settings, Sweep, Visited};
use super::tables::{LpiTables, PendingBits};
#[cfg(test)]
use alloc::{collections::BTreeSet, vec::Vec};
use doorbell_fallible::OutOfMemory;
use gic_arch::lpi::Config;
use gic_arch::{Lpi, gicr};

impl Control {
    /// Handles `GICR_CTLR.EnableLPIs` 0 → 1. Once its sweep is done
    /// ([`is_enabling`](Self::is_enabling)), messages are accepted, and the LPIs set in the pending
    /// table are pending.
    ///
    /// # Errors
    /// The heap is exhausted. LPIs stay disabled.
    pub(crate) fn enable_lpis(
        &mut self,
        vcpu: u32,
        propbaser: gicr::Propbaser,
        pendbaser: gicr::Pendbaser,
    ) -> Result<(), OutOfMemory> {
        let tables = LpiTables::new(propbaser, pendbaser, self.config.id_bits);
        if !self.enabled.is_disabled(vcpu) {
            return Ok(());
        }
        self.provide(vcpu, &tables)?;
        let mut pending = self.enabled.take_image(vcpu);
        self.load_pending(vcpu, &tables, pendbaser, &mut pending);
        self.enabled.set(vcpu, Some(tables));
        let (cursor, own) = (self.all_chunks(), OwnCursor::START);
        self.start(Cause::Enable(vcpu), Sweep::Enable { cursor, own, vcpu, pending, next: 0 });
        Ok(())
    }

    /// Sets or removes a vCPU's tables, and publishes how far they reach.
    pub(super) fn set_tables(&mut self, vcpu: u32, tables: Option<LpiTables>) {
        self.enabled.set(vcpu, tables);
        if let Some(own) = self.shared.own(vcpu) {
            let end = |tables: LpiTables| if tables.is_absent() { 1 } else { tables.end() };
            own.end.set(tables.map_or(0, end).into());
        }
    }

    /// Finds another vCPU whose LPIs are enabled and whose pending table overlaps this vCPU's
    /// pending table. If two tables overlap, each redistributor may overwrite the other's pending
    /// bits.
    pub(crate) fn sharer_of_pending_table(&self, vcpu: u32) -> Option<u32> {
        self.enabled.sharer_of_pending_table(vcpu)
    }

    /// Allocates the memory that a redistributor with these tables needs while its LPIs are
    /// enabled: a buffer for the pending table's bits and, with direct LPIs, an entry for every
    /// LPI.
    pub(super) fn provide(&mut self, vcpu: u32, tables: &LpiTables) -> Result<(), OutOfMemory> {
        if let Some(own) = self.shared.own(vcpu).filter(|_| self.config.direct) {
            own.ensure_below(tables.end())?;
        }
        self.enabled.fit_image(vcpu, tables)
    }

    /// Returns `true` if enabling LPIs has stopped for lack of heap memory.
    pub(crate) fn is_enabling_starved(&self, vcpu: u32) -> bool {
        self.sweeps.is_starved(Cause::Enable(vcpu))
    }

    /// Reads the pending table into an empty image.
    fn load_pending(
        &mut self,
        vcpu: u32,
        tables: &LpiTables,
        pendbaser: gicr::Pendbaser,
        image: &mut PendingBits,
    ) {
        if pendbaser.pending_table_zero() {
            return;
        }
        self.count_work(image.transfer_work());
        if let Err(fault) = tables.read_pending(image, &*self.memory) {
            self.faults.unreadable(vcpu, gicr::PENDBASER.offset(), fault);
            image.clear();
        }
    }

    /// Handles `GICR_CTLR.EnableLPIs` 1 → 0. Once its sweep is done
    /// ([`is_disabling`](Self::is_disabling)), LPIs can't become pending at this redistributor any
    /// more, and LPIs that were pending are set in the pending table.
    pub(crate) fn disable_lpis(&mut self, vcpu: u32) {
        let Some(tables) = self.enabled.get(vcpu) else { return };
        self.set_tables(vcpu, None);
        self.sweeps.abandon(Cause::Invalidate(vcpu));
        // Pending table bits that haven't been transferred to an entry yet.
        let pending = if let Some(Sweep::Enable { pending, next, .. }) =
            self.sweeps.abandon(Cause::Enable(vcpu))
        {
            pending.from(next)
        } else {
            let mut image = self.enabled.take_image(vcpu);
            // The allocation can't fail, because the image already had this size when LPIs were
            // enabled.
            let _ = tables.fit(&mut image);
            image
        };
        let (cursor, own) = (self.all_chunks(), OwnCursor::START);
        self.start(Cause::Disable(vcpu), Sweep::Disable { cursor, own, vcpu, tables, pending });
    }

    /// Returns `true` if `EnableLPIs` was cleared, but the pending LPIs still have to be written to
    /// the pending table.
    pub(crate) fn is_disabling(&self, vcpu: u32) -> bool {
        self.sweeps.contains(Cause::Disable(vcpu))
    }

    /// Resets the LPI state of all redistributors and discards pending state, in a single pass.
    pub(super) fn reset_lpis(&mut self) {
        self.sweep(|control, index| control.reset_entry(Location::Event(index)));
        for vcpu in self.enabled.vcpus() {
            let shared = self.shared.clone();
            for block in shared.own(vcpu).into_iter().flat_map(RedistributorLpis::blocks) {
                block.indices().for_each(|index| self.reset_entry(Location::Own { vcpu, index }));
            }
            self.set_tables(vcpu, None);
            for cause in [Cause::Invalidate(vcpu), Cause::Enable(vcpu), Cause::Disable(vcpu)] {
                self.sweeps.abandon(cause);
            }
        }
        self.note_registers();
    }

    fn reset_entry(&mut self, location: Location) {
        let stopped = |entry: Entry| entry.stopped().with_held(false);
        let (old, new) = self.shared.update(location, stopped);
        self.retire(location, old, new);
    }

    /// Returns the LPIs that are pending at this redistributor, in ascending order.
    #[cfg(test)]
    pub(super) fn pending(&mut self, vcpu: u32) -> Vec<Lpi> {
        let mut found = BTreeSet::new();
        let is_pending =
            |entry: Entry| entry.target() == vcpu && (entry.is_pending() || entry.is_held());
        self.sweep(|control, index| {
            let entry = control.shared.load(Location::Event(index));
            found.extend(is_pending(entry).then(|| entry.lpi()));
        });
        found.extend(self.own_entries(vcpu).filter(|entry| is_pending(*entry)).map(Entry::lpi));
        found.into_iter().collect()
    }

    /// Handles a write to `GICR_INVLPIR`: rereads one LPI's configuration from memory. If several
    /// events are mapped to the LPI, the operation is complete when its sweep is done
    /// ([`is_invalidating`](Self::is_invalidating)).
    pub(super) fn invalidate(&mut self, vcpu: u32, lpi: Lpi) -> Result<(), OutOfMemory> {
        if !self.implements(lpi) {
            return Ok(());
        }
        self.count_work(1);
        let (state, rewrites) = self.parts();
        if state.reload_lpi(rewrites, vcpu, lpi)? {
            return Ok(());
        }
        if self.is_invalidating(vcpu) {
            // Each further request would need its own sweep, so do a single sweep over all LPIs
            // instead.
            self.invalidate_all(vcpu);
        } else if let next @ Some(_) = self.device_entries.by_lpi.first(lpi.index()) {
            let change = LpiChange::ReloadAt(vcpu);
            self.start(Cause::Invalidate(vcpu), Sweep::ForLpi { lpi, next, change });
        }
        Ok(())
    }

    /// Handles a write to `GICR_INVALLR`: rereads every LPI's configuration from memory. The
    /// invalidation is complete when its sweep is done.
    pub(crate) fn invalidate_all(&mut self, vcpu: u32) {
        self.start_invalidation(Cause::Invalidate(vcpu), vcpu);
    }

    /// Returns `true` if an invalidation by a register write is not yet complete.
    pub(crate) fn is_invalidating(&self, vcpu: u32) -> bool {
        self.sweeps.contains(Cause::Invalidate(vcpu))
    }

    /// Reads the configuration of a block of own LPIs from memory. If a configuration can't be
    /// read, the LPI is disabled.
    pub(super) fn reload_own(&mut self, vcpu: u32, block: LpiBlock) -> Visited<OutOfMemory> {
        let mut bytes = [0; BLOCK as usize];
        let read = match self.enabled.get(vcpu) {
            Some(tables) => tables.read_configs(block.first(), &mut bytes, &*self.memory),
            None => Ok(()),
        };
        if read.is_err() {
            bytes = [0; BLOCK as usize];
        }
        for (index, byte) in block.indices().zip(bytes) {
            self.refresh(Location::Own { vcpu, index }, Settings::Read(Config::from_bits(byte)))?;
        }
        Ok(read)
    }

    /// Moves the pending state of one entry, for MOVALL.
    pub(super) fn move_if_pending(
        &mut self,
        location: Location,
        from: u32,
        to: u32,
    ) -> Result<(), Pause> {
        let entry = self.shared.load(location);
        if entry.target() != from || !entry.is_pending_or_held() {
            return Ok(());
        }
        let there = self.prepare_at(to, entry.lpi())?;
        if self.update_folded(location, Entry::emptied)?.is_pending_or_held()
            && let Some((own, refresh)) = there
        {
            self.pend(own, refresh);
        }
        Ok(())
    }

    /// Makes an LPI pending at a redistributor.
    pub(super) fn pend_at(&mut self, vcpu: u32, lpi: Lpi) -> Result<(), OutOfMemory> {
        if let Some((location, refresh)) = self.prepare_at(vcpu, lpi)? {
            self.pend(location, refresh);
        }
        Ok(())
    }

    /// Returns the entry in which an LPI is pending at a redistributor, and its next value.
    fn prepare_at(&self, vcpu: u32, lpi: Lpi) -> Result<Option<(Location, Refresh)>, OutOfMemory> {
        let location = self.place_of(vcpu, lpi);
        let mut settings = Settings::Keep;
        if let (Location::Own { .. }, Some(own)) = (location, self.shared.own(vcpu)) {
            own.ensure(lpi)?;
            if !self.shared.load(location).is_pending_or_held() {
                // The entry may hold the configuration from an earlier time that the LPI was
                // pending here, which a saved state doesn't contain.
                settings = Settings::Reload;
            }
        }
        Ok(self.prepared(location, settings)?.map(|refresh| (location, refresh)))
    }

    /// Returns the entry in which an LPI is pending at a redistributor: its event's entry if the
    /// event targets the vCPU, otherwise the redistributor's own entry.
    pub(super) fn place_of(&self, vcpu: u32, lpi: Lpi) -> Location {
        match self.device_entries.by_lpi.only(lpi.index()).map(Location::Event) {
            Some(event) if self.shared.load(event).target() == vcpu => event,
            _ => Location::own(vcpu, lpi),
        }
    }

    /// Refreshes an event's entry, and checks that it has taken over the pending state that its
    /// target redistributor holds for its LPI.
    ///
    /// # Errors
    /// The entry must be refreshed again later.
    pub(super) fn refresh_event(
        &mut self,
        index: EntryIndex,
        settings: Settings,
    ) -> Result<(), Pause> {
        let event = Location::Event(index);
        while self.route_of(event, self.shared.load(event)).is_some() {
            self.refresh(event, settings)?;
            if !self.is_own_left(event) {
                break;
            }
            self.ensure_folded(self.own_lpi_of(event))?;
        }
        Ok(())
    }
}
