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
//! recalled. When it has folded its list registers, the sweep is deferred work.

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
use super::sweep::{Cursor, LpiChange, OwnCursor, Pause, Settings, Sweep, Visited};
use super::tables::PendingBits;
use doorbell_fallible::OutOfMemory;
use gic_arch::{Lpi, gicr};

impl Sweep {
    /// Advances the sweep until it is done or [`work`](Control::work) reaches `limit`. Returns
    /// `true` if it is done.
    ///
    /// # Errors
    /// The sweep has paused. It can be resumed later.
    pub(super) fn advance(&mut self, control: &mut Control, limit: u64) -> Result<bool, Pause> {
        match self {
            Self::Refresh { cursor, meant } => {
                visit(control, cursor, limit, |control, index, owner| {
                    if control.device_entries.by_lpi.has_neighbors(index) {
                        // The LPI's other events must not keep another configuration.
                        control.refresh_event(index, Settings::Reload)?;
                    } else if meant.contains(owner) {
                        control.refresh_event(index, Settings::Keep)?;
                    }
                    Ok(())
                })
            }
            Self::Invalidate { cursor, own, vcpu } => {
                let mut ahead = ReadAhead::default();
                Ok(visit(control, cursor, limit, |control, index, owner| {
                    ahead.reload_event(control, *vcpu, index, owner)
                })? && visit_own(control, *vcpu, own, limit, |control, block| {
                    control.reload_own(*vcpu, block)
                })?)
            }
            Self::ForLpi { lpi, next, change } => change_on(control, *lpi, next, *change, limit),
            Self::MoveAll { cursor, own, from, to } => {
                let each =
                    |control: &mut Control, location| control.move_if_pending(location, *from, *to);
                Ok(visit(control, cursor, limit, |control, index, _| {
                    each(control, Location::Event(index))
                })? && visit_own(control, *from, own, limit, |control, block| {
                    let mut own = block.indices().map(|index| Location::Own { vcpu: *from, index });
                    own.try_for_each(|location| each(control, location)).map(Ok)
                })?)
            }
            Self::Unmap { its, devices, teardown } => {
                Ok(unmap_on(control, *its, devices, teardown, limit))
            }
            Self::Enable { cursor, own, vcpu, pending, next } => {
                Ok(visit(control, cursor, limit, |control, index, _| {
                    Ok(enable_entry(control, index, *vcpu, pending)?)
                })? && visit_own(control, *vcpu, own, limit, |control, block| {
                    enable_own(control, *vcpu, block, pending)
                })? && pend_rest(control, *vcpu, pending, next, limit)?)
            }
            Self::Disable { cursor, own, vcpu, pending, .. } => {
                let mut each = |control: &mut Control, location| {
                    disable_entry(control, location, *vcpu, pending)
                };
                Ok(visit(control, cursor, limit, |control, index, _| {
                    each(control, Location::Event(index))
                })? && visit_own(control, *vcpu, own, limit, |control, block| {
                    let mut own = block.indices().map(|index| Location::Own { vcpu: *vcpu, index });
                    own.try_for_each(|location| each(control, location)).map(Ok)
                })?)
            }
        }
    }

    /// Completes the sweep. The image's buffer is kept for the next sweep.
    pub(super) fn finish(self, control: &mut Control) {
        let (vcpu, image) = match self {
            Self::Enable { vcpu, pending, .. } => (vcpu, pending),
            Self::Disable { vcpu, tables, pending, .. } => {
                control.count_work(pending.transfer_work());
                if let Err(fault) = tables.write_pending(&pending, &*control.memory) {
                    control.faults.unreadable(vcpu, gicr::PENDBASER.offset(), fault);
                }
                (vcpu, pending)
            }
            Self::Refresh { .. }
            | Self::Invalidate { .. }
            | Self::ForLpi { .. }
            | Self::MoveAll { .. }
            | Self::Unmap { .. } => return,
        };
        control.enabled.put_image(vcpu, image);
    }
}

/// Visits the entries that have an owner, chunk by chunk.
fn visit(
    control: &mut Control,
    cursor: &mut Cursor,
    limit: u64,
    mut each: impl FnMut(&mut Control, EntryIndex, Owner) -> Result<(), Pause>,
) -> Result<bool, Pause> {
    while cursor.next < cursor.end {
        if control.work() >= limit {
            return Ok(false);
        }
        control.count_work(1);
        for index in control.device_entries.allocator.entries_in_use(cursor.next) {
            let owner = control.device_entries.allocator.owner(index);
            if owner != Owner::Nobody {
                control.count_work(1);
                each(control, index, owner)?;
            }
        }
        cursor.next += 1;
    }
    Ok(true)
}

/// Visits the entries of the events that are mapped to an LPI.
fn change_on(
    control: &mut Control,
    lpi: Lpi,
    next: &mut Option<EntryIndex>,
    change: LpiChange,
    limit: u64,
) -> Result<bool, Pause> {
    if next.is_some_and(|index| !control.device_entries.is_mapped_to(index, lpi)) {
        // The entry was removed from the LPI's list, so start again.
        *next = control.device_entries.by_lpi.first(lpi.index());
    }
    while let Some(index) = *next {
        if control.work() >= limit {
            return Ok(false);
        }
        control.count_work(1);
        let event = Location::Event(index);
        let target = control.shared.load(event).target();
        match change {
            LpiChange::Reload => control.refresh_event(index, Settings::Reload)?,
            LpiChange::ReloadAt(vcpu) if target == vcpu => {
                control.refresh_event(index, Settings::Reload)?;
            }
            LpiChange::ClearAt(vcpu) if target == vcpu => _ = control.clear(event),
            LpiChange::ReloadAt(_) | LpiChange::ClearAt(_) => {}
        }
        *next = control.device_entries.by_lpi.after(index);
    }
    Ok(true)
}

/// Visits a redistributor's own LPIs, block by block.
fn visit_own<E>(
    control: &mut Control,
    vcpu: u32,
    cursor: &mut OwnCursor,
    limit: u64,
    mut each: impl FnMut(&mut Control, LpiBlock) -> Visited<E>,
) -> Result<bool, E> {
    let shared = control.shared.clone();
    while let Some(block) = shared.own(vcpu).and_then(|own| own.block_from(cursor.next)) {
        if control.work() >= limit {
            return Ok(false);
        }
        control.count_work(BLOCK);
        if let Err(fault) = each(control, block)?
            && !core::mem::replace(&mut cursor.is_unreadable, true)
        {
            control.faults.unreadable(vcpu, gicr::PROPBASER.offset(), fault);
        }
        cursor.next = block.next();
    }
    Ok(true)
}

fn unmap_on(
    control: &mut Control,
    its: ItsIndex,
    devices: &mut Option<u32>,
    teardown: &mut IttTeardown,
    limit: u64,
) -> bool {
    loop {
        if !close_on(control, teardown, limit) {
            return false;
        }
        let Some((first, translator)) = devices.zip(control.translators.get_mut(its)) else {
            return true;
        };
        let Some((device, _)) = translator.device_from(first) else { return true };
        *teardown = translator.unmap_device(device).unwrap_or_default();
        *devices = device.checked_add(1);
        control.count_work(1);
    }
}

fn close_on(control: &mut Control, teardown: &mut IttTeardown, limit: u64) -> bool {
    while control.work() < limit {
        if let Some(block) = teardown.take_block() {
            close_block(control, block.first_entry(), teardown.size());
        }
        if !close(control, teardown) {
            return true;
        }
    }
    teardown.is_done()
}

/// Closes the next node or block below a link. No LPI in a closed block stays pending. Returns
/// `false` if everything is already closed.
fn close(control: &mut Control, teardown: &mut IttTeardown) -> bool {
    match control.device_entries.close_link(teardown) {
        Closing::Done => return false,
        Closing::Node => {}
        Closing::Link(block) => {
            control.count_work(1);
            if let Some(first) = block {
                close_block(control, first, teardown.size());
            }
        }
    }
    true
}

fn close_block(control: &mut Control, first: EntryIndex, size: u32) {
    control.count_work(1 << size);
    for index in block_entries(first, size) {
        control.unmap_entry(index);
    }
    control.device_entries.allocator.release_block(first, size);
}

fn enable_entry(
    control: &mut Control,
    index: EntryIndex,
    vcpu: u32,
    pending: &mut PendingBits,
) -> Result<(), OutOfMemory> {
    let location = Location::Event(index);
    let entry = control.shared.load(location);
    if entry.target() == vcpu {
        if pending.take(entry.lpi()) {
            control.shared.update(location, |entry| entry.with_held(true));
        }
        control.refresh(location, Settings::Reload)?;
    }
    Ok(())
}

fn enable_own(
    control: &mut Control,
    vcpu: u32,
    block: LpiBlock,
    pending: &mut PendingBits,
) -> Visited<OutOfMemory> {
    for lpi in block.indices().filter_map(Lpi::from_index) {
        if !pending.take(lpi) {
            continue;
        }
        match control.place_of(vcpu, lpi) {
            event @ Location::Event(_) => {
                control.pend_event(event).inspect_err(|OutOfMemory| pending.set(lpi))?;
            }
            own @ Location::Own { .. } => {
                _ = control.shared.update(own, |entry| entry.with_held(true));
            }
        }
    }
    control.reload_own(vcpu, block)
}

/// Makes the remaining LPIs in the pending table, which no event's entry has taken over,
/// pending in the redistributor's own entries.
fn pend_rest(
    control: &mut Control,
    vcpu: u32,
    pending: &PendingBits,
    next: &mut u32,
    limit: u64,
) -> Result<bool, OutOfMemory> {
    while let Some(lpi) = pending.first_from(*next) {
        if control.work() >= limit {
            return Ok(false);
        }
        control.count_work(1);
        control.pend_at(vcpu, lpi)?;
        *next = lpi.index() + 1;
    }
    Ok(true)
}

fn disable_entry(
    control: &mut Control,
    location: Location,
    vcpu: u32,
    pending: &mut PendingBits,
) -> Result<(), Pause> {
    if control.shared.load(location).target() == vcpu {
        let old = control.update_folded(location, Entry::stopped)?;
        if old.is_pending() {
            pending.set(old.lpi());
        }
    }
    Ok(())
}
