//! Carries out sweeps, i.e. work that visits many entries, one piece at a time, so that no guest
//! access exceeds its budget regardless of the number of mappings.
//!
//! A sweep starts after its cause has already changed the state ([`Control`]). The sweep then
//! updates the entries to match, one chunk after the other. [`Control::refresh`] derives an entry
//! from the current state, so sweeps and commands may interleave: if a command has updated an entry
//! in between, it is already correct, and refreshing it again does no harm. The guest observes the
//! end of the sweep through the status that it polls: consumption of the command, `GICR_CTLR.RWP`,
//! `GICR_SYNCR.Busy` or `GITS_CTLR.Quiescent`.
//!
//! The architecture has no status bit that reports when *enabling* LPIs or an ITS is complete, and
//! messages must be delivered as soon as the write returns. Therefore, the write doesn't return
//! until its sweep is done, or the vCPU must repeat the write. The sweep runs one piece at a time,
//! and releases the command lock in between. Until it is done, the enable bit reads as zero. A
//! message that arrives during the sweep is accepted if its entry was already visited; otherwise it
//! counts as sent before the enable.
//!
//! A sweep that runs out of memory pauses, and resumes at the same chunk the next time. A paused
//! sweep doesn't count as deferred work, so it doesn't keep vCPUs awake. If the sweep belongs to a
//! write that enables LPIs or an ITS, the enable bit is cleared again.
//!
//! A sweep that moves pending state to another entry or to memory also pauses at an LPI in a list
//! register, because only the vCPU knows whether the guest has acknowledged it. The vCPU is
//! recalled, and resumes the sweep when it has folded its list registers.

use super::control::Control;
use super::device_entries::{Closing, block_entries};
use super::entry::Entry;
use super::entry_allocator::Owner;
use super::entry_table::EntryIndex;
use super::itt_teardown::IttTeardown;
use super::mapping::ItsIndex;
use super::redistributor_lpis::{BLOCK, LpiBlock};
use super::reload::ReadAhead;
use super::shared::Location;
use super::sweep::{Cause, Cursor, Meant, OwnCursor, Pause, Settings, Sweep, Visited, Work};
use super::tables::PendingBits;
use doorbell_fallible::OutOfMemory;
use gic_arch::{Lpi, gicr, gits};

impl Control {
    /// Returns a cursor over all chunks in use.
    pub(super) fn all_chunks(&self) -> Cursor {
        Cursor { next: 0, end: self.device_entries.chunk_count() }
    }

    /// Starts a sweep. A sweep with the same cause is replaced, because the new sweep also covers
    /// its entries. A command's sweep is an exception: its ITS delays the next command until the
    /// sweep is done, or we finish the sweep here first.
    pub(super) fn start(&mut self, cause: Cause, sweep: Sweep) {
        if cause.is_commands() {
            let _ = self.advance(cause, u64::MAX);
        }
        self.sweeps.insert(cause, Work { sweep, pause: None });
    }

    /// Starts to refresh entries.
    pub(super) fn start_refresh(&mut self, cause: Cause, meant: Meant) {
        let cursor = self.all_chunks();
        self.start(cause, Sweep::Refresh { cursor, meant });
    }

    /// Starts to reread the configuration of every LPI at a redistributor.
    pub(super) fn start_invalidation(&mut self, cause: Cause, vcpu: u32) {
        let (cursor, own) = (self.all_chunks(), OwnCursor::START);
        self.start(cause, Sweep::Invalidate { cursor, own, vcpu });
    }

    /// Advances a sweep until it is done or [`work`](Self::work) reaches `limit`. Returns `true` if
    /// it is done.
    ///
    /// # Errors
    /// The sweep has paused. It can be resumed later.
    pub(super) fn advance(&mut self, cause: Cause, limit: u64) -> Result<bool, Pause> {
        let Some(mut work) = self.sweeps.remove(cause) else { return Ok(true) };
        let result = self.sweep_on(&mut work.sweep, limit);
        if result == Ok(true) {
            self.finish_with(work.sweep);
            self.publish(cause);
            return result;
        }
        let before = core::mem::replace(&mut work.pause, result.err());
        if work.pause == Some(Pause::OutOfMemory) && work.pause != before {
            self.record_starved(cause);
        }
        self.sweeps.insert(cause, work);
        result
    }

    /// Publishes that messages are accepted, after a sweep that enables LPIs or an ITS.
    fn publish(&mut self, done: Cause) {
        match done {
            Cause::Enable(vcpu) => self.set_tables(vcpu, self.enabled.get(vcpu)),
            Cause::Admit(its) => {
                self.translators.get(its).into_iter().for_each(|its| its.publish(true));
            }
            _ => {}
        }
    }

    /// Records that a request made by a register write failed for lack of heap memory.
    fn record_starved(&self, cause: Cause) {
        let tables = gits::BASER.info("BASER");
        let (its, register) = match cause {
            Cause::Teardown(its) => (its, tables.offset),
            Cause::Resettle(its) | Cause::Admit(its) => (its, gits::CTLR.offset()),
            Cause::Command(its) => (its, gits::CREADR.offset()),
            Cause::Enable(vcpu) | Cause::Disable(vcpu) => {
                return self.faults.starved_redistributor(vcpu, gicr::CTLR.offset());
            }
            Cause::Invalidate(vcpu) => {
                return self.faults.starved_redistributor(vcpu, gicr::INVALLR.offset());
            }
        };
        if let Some(translator) = self.translators.get(its) {
            self.faults.starved((translator.frame, register));
        }
    }

    /// Advances the sweeps started by register writes at any redistributor or ITS. Returns `true`
    /// if none of these sweeps can make further progress.
    pub(crate) fn advance_registers(&mut self, limit: u64) -> bool {
        self.advance_all(limit, |cause| !cause.is_commands())
    }

    /// Runs every sweep to its end.
    ///
    /// # Errors
    /// The heap is exhausted, or a vCPU runs with LPIs in list registers, and a sweep remains
    /// unfinished.
    pub(crate) fn finish_sweeps(&mut self) -> Result<(), OutOfMemory> {
        self.advance_all(u64::MAX, |_| true);
        self.note_registers();
        if self.sweeps.is_empty() { Ok(()) } else { Err(OutOfMemory) }
    }

    fn advance_all(&mut self, limit: u64, is_meant: impl Fn(Cause) -> bool) -> bool {
        let mut last = None;
        while let Some(cause) = self.sweeps.next(last, &is_meant) {
            // A sweep that reads or writes a pending table may exceed the limit as it ends.
            if self.work() >= limit || self.advance(cause, limit) == Ok(false) {
                return false;
            }
            last = Some(cause);
        }
        true
    }

    fn sweep_on(&mut self, sweep: &mut Sweep, limit: u64) -> Result<bool, Pause> {
        match sweep {
            Sweep::Refresh { cursor, meant } => {
                self.visit(cursor, limit, |control, index, owner| {
                    if meant.contains(owner) {
                        control.refresh_event(index, Settings::Keep)?;
                    }
                    Ok(())
                })
            }
            Sweep::Invalidate { cursor, own, vcpu } => {
                let mut ahead = ReadAhead::default();
                Ok(self.visit(cursor, limit, |control, index, owner| {
                    control.reload_event(*vcpu, (index, owner), &mut ahead)
                })? && self.visit_own(*vcpu, own, limit, |control, block| {
                    control.reload_own(*vcpu, block)
                })?)
            }
            Sweep::InvalidateLpi { vcpu, lpi, next } => {
                self.invalidate_on(*vcpu, *lpi, next, limit)
            }
            Sweep::MoveAll { cursor, own, from, to } => {
                let each =
                    |control: &mut Self, location| control.move_if_pending(location, *from, *to);
                Ok(self.visit(cursor, limit, |control, index, _| {
                    each(control, Location::Event(index))
                })? && self.visit_own(*from, own, limit, |control, block| {
                    let mut own = block.indices().map(|index| Location::Own { vcpu: *from, index });
                    own.try_for_each(|location| each(control, location)).map(Ok)
                })?)
            }
            Sweep::Unmap { its, devices, teardown } => {
                Ok(self.unmap_on(*its, devices, teardown, limit))
            }
            Sweep::Enable { cursor, own, vcpu, pending, next } => {
                Ok(self.visit(cursor, limit, |control, index, _| {
                    Ok(control.enable_entry(index, *vcpu, pending)?)
                })? && self.visit_own(*vcpu, own, limit, |control, block| {
                    control.enable_own(*vcpu, block, pending)
                })? && self.pend_rest(*vcpu, pending, next, limit)?)
            }
            Sweep::Disable { cursor, own, vcpu, pending, .. } => {
                let mut each =
                    |control: &mut Self, location| control.disable_entry(location, *vcpu, pending);
                Ok(self.visit(cursor, limit, |control, index, _| {
                    each(control, Location::Event(index))
                })? && self.visit_own(*vcpu, own, limit, |control, block| {
                    let mut own = block.indices().map(|index| Location::Own { vcpu: *vcpu, index });
                    own.try_for_each(|location| each(control, location)).map(Ok)
                })?)
            }
        }
    }

    /// Completes a sweep. The image's buffer is kept for the next sweep.
    fn finish_with(&mut self, sweep: Sweep) {
        let (vcpu, image) = match sweep {
            Sweep::Enable { vcpu, pending, .. } => (vcpu, pending),
            Sweep::Disable { vcpu, tables, pending, .. } => {
                self.count_work(pending.transfer_work());
                if let Err(fault) = tables.write_pending(&pending, &*self.memory) {
                    self.faults.unreadable(vcpu, gicr::PENDBASER.offset(), fault);
                }
                (vcpu, pending)
            }
            Sweep::Refresh { .. }
            | Sweep::Invalidate { .. }
            | Sweep::InvalidateLpi { .. }
            | Sweep::MoveAll { .. }
            | Sweep::Unmap { .. } => return,
        };
        self.enabled.put_image(vcpu, image);
    }

    /// Visits the entries that have an owner, chunk by chunk.
    fn visit(
        &mut self,
        cursor: &mut Cursor,
        limit: u64,
        mut each: impl FnMut(&mut Self, EntryIndex, Owner) -> Result<(), Pause>,
    ) -> Result<bool, Pause> {
        while cursor.next < cursor.end {
            if self.work() >= limit {
                return Ok(false);
            }
            self.count_work(1);
            for index in self.device_entries.entries_in_use(cursor.next) {
                let owner = self.device_entries.owner(index);
                if owner != Owner::Nobody {
                    self.count_work(1);
                    each(self, index, owner)?;
                }
            }
            cursor.next += 1;
        }
        Ok(true)
    }

    /// Visits a redistributor's own LPIs, block by block.
    fn visit_own<E>(
        &mut self,
        vcpu: u32,
        cursor: &mut OwnCursor,
        limit: u64,
        mut each: impl FnMut(&mut Self, LpiBlock) -> Visited<E>,
    ) -> Result<bool, E> {
        let shared = self.shared.clone();
        while let Some(block) = shared.own(vcpu).and_then(|own| own.block_from(cursor.next)) {
            if self.work() >= limit {
                return Ok(false);
            }
            self.count_work(BLOCK);
            if let Err(fault) = each(self, block)?
                && !core::mem::replace(&mut cursor.is_unreadable, true)
            {
                self.faults.unreadable(vcpu, gicr::PROPBASER.offset(), fault);
            }
            cursor.next = block.next();
        }
        Ok(true)
    }

    fn unmap_on(
        &mut self,
        its: ItsIndex,
        devices: &mut Option<u32>,
        teardown: &mut IttTeardown,
        limit: u64,
    ) -> bool {
        loop {
            if !self.close_on(teardown, limit) {
                return false;
            }
            let Some((first, translator)) = devices.zip(self.translators.get_mut(its)) else {
                return true;
            };
            let Some((device, _)) = translator.device_from(first) else { return true };
            *teardown = translator.unmap_device(device).unwrap_or_default();
            *devices = device.checked_add(1);
            self.count_work(1);
        }
    }

    pub(super) fn close_on(&mut self, teardown: &mut IttTeardown, limit: u64) -> bool {
        while self.work() < limit {
            if let Some(block) = teardown.take_block() {
                self.close_block(block.first_entry(), teardown.size());
            }
            if !self.close(teardown) {
                return true;
            }
        }
        teardown.is_done()
    }

    /// Closes the next node or block below a link. No LPI in a closed block stays pending. Returns
    /// `false` if everything is already closed.
    fn close(&mut self, teardown: &mut IttTeardown) -> bool {
        match self.device_entries.close_link(teardown) {
            Closing::Done => return false,
            Closing::Node => {}
            Closing::Link(block) => {
                self.count_work(1);
                if let Some(first) = block {
                    self.close_block(first, teardown.size());
                }
            }
        }
        true
    }

    fn close_block(&mut self, first: EntryIndex, size: u32) {
        self.count_work(1 << size);
        for index in block_entries(first, size) {
            self.unmap_entry(index);
        }
        self.device_entries.release_block(first, size);
    }

    fn enable_entry(
        &mut self,
        index: EntryIndex,
        vcpu: u32,
        pending: &mut PendingBits,
    ) -> Result<(), OutOfMemory> {
        let location = Location::Event(index);
        let entry = self.shared.load(location);
        if entry.target() == vcpu {
            if pending.take(entry.lpi()) {
                self.shared.update(location, |entry| entry.with_held(true));
            }
            self.refresh(location, Settings::Reload)?;
        }
        Ok(())
    }

    fn enable_own(
        &mut self,
        vcpu: u32,
        block: LpiBlock,
        pending: &mut PendingBits,
    ) -> Visited<OutOfMemory> {
        for lpi in block.indices().filter_map(Lpi::from_index) {
            if !pending.take(lpi) {
                continue;
            }
            match self.place_of(vcpu, lpi) {
                event @ Location::Event(_) => {
                    self.pend_event(event).inspect_err(|OutOfMemory| pending.set(lpi))?;
                }
                own @ Location::Own { .. } => {
                    _ = self.shared.update(own, |entry| entry.with_held(true));
                }
            }
        }
        self.reload_own(vcpu, block)
    }

    /// Makes the remaining LPIs in the pending table, which no event's entry has taken over,
    /// pending in the redistributor's own entries.
    fn pend_rest(
        &mut self,
        vcpu: u32,
        pending: &PendingBits,
        next: &mut u32,
        limit: u64,
    ) -> Result<bool, OutOfMemory> {
        while let Some(lpi) = pending.first_from(*next) {
            if self.work() >= limit {
                return Ok(false);
            }
            self.count_work(1);
            self.pend_at(vcpu, lpi)?;
            *next = lpi.index() + 1;
        }
        Ok(true)
    }

    fn disable_entry(
        &mut self,
        location: Location,
        vcpu: u32,
        pending: &mut PendingBits,
    ) -> Result<(), Pause> {
        if self.shared.load(location).target() == vcpu {
            let old = self.update_folded(location, Entry::stopped)?;
            if old.is_pending() {
                pending.set(old.lpi());
            }
        }
        Ok(())
    }
}
