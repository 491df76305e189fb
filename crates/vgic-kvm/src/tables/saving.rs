//! Writes an ITS's tables.

use super::scan::{self, Budget, ENTRY};
use super::{Numbers, UNMAPPED};
use crate::abi::{CollectionEntry, DeviceEntry, Errno, TranslationEntry};
use crate::left_out::{TableMemory, add};
use alloc::vec::Vec;
use core::ops::Range;
use doorbell_fallible::{try_collect, try_push};
use gic_arch::gits::Baser;
use gic_arch::its::CollectionId;
use vgic::saved_state::{DeviceState, EventState, ItsState};

/// Writes all tables. A table outside memory is the guest's fault and must not prevent its
/// migration, so objects that can't be written are left out and counted.
pub(crate) fn save(
    its: &ItsState,
    numbers: &Numbers,
    memory: &mut TableMemory<'_>,
) -> Result<Written, Errno> {
    let [table, collections, ..] = its.baser.map(Baser::from_bits);
    let mut budget = Budget::new(u32::MAX, u32::MAX);
    let collections = save_collections(collections, its, numbers, memory)?;
    let devices = if table.valid() {
        save_devices(table, &its.devices, &collections, memory, &mut budget)?
    } else {
        Vec::new()
    };
    Ok(Written { collections, devices })
}

/// Objects that a save has written to an ITS's tables, in ascending order.
pub(crate) struct Written {
    collections: Vec<CollectionId>,
    devices: Vec<u64>,
}

impl Written {
    /// Returns `true` if the collection table contains the collection, mapped or not.
    pub(crate) fn has_collection(&self, number: u64) -> bool {
        self.collections.binary_search_by_key(&number, |id| id.get().into()).is_ok()
    }

    /// Returns `true` if the device table contains the device.
    pub(crate) fn has_device(&self, id: u64) -> bool {
        self.devices.binary_search(&id).is_ok()
    }
}

/// Turns a fault on a table outside guest memory into `None`. Returns other errors unchanged.
fn written<T>(outcome: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match outcome {
        Ok(written) => Ok(Some(written)),
        Err(Errno::Fault) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Writes the device table. A reader follows the distances between entries, and advances by one at
/// an invalid entry. Old contents must therefore be cleared wherever a reader could find them,
/// which is before the first entry on each page and where a distance saturates. A device is left
/// out if its entry or its translation table is outside memory. Returns the DeviceIDs in the table.
fn save_devices(
    table: Baser,
    devices: &[DeviceState],
    collections: &[CollectionId],
    memory: &mut TableMemory<'_>,
    budget: &mut Budget,
) -> Result<Vec<u64>, Errno> {
    let mut saved = Vec::new();
    for device in devices {
        let address = scan::locate(table, device.device.get().into(), memory);
        if let Some(address) = address
            && memory.write_u64(address, 0).is_ok()
            && let Some(events) = written(save_events(device, collections, memory, budget))?
        {
            add(&mut memory.left_out.events, device.events.len() - events);
            try_push(&mut saved, (device, address))?;
        }
    }
    add(&mut memory.left_out.devices, devices.len() - saved.len());
    let ids = try_collect(saved.iter().map(|(device, _)| u64::from(device.device.get())))?;
    for index in 0..scan::page_count(table, memory) {
        let Ok(Some(page)) = scan::page(table, index, memory) else { continue };
        let inside = |id: &&u64| (page.first..page.first + page.entries).contains(*id);
        let first = ids.iter().find(inside).map_or(page.entries, |id| id - page.first);
        written(budget.clear(page.address, first, memory))?;
        // A reader stops at the last device, so the remaining pages need not be cleared.
        if ids.last().is_some_and(|last| *last < page.first + page.entries) {
            break;
        }
    }
    for ((device, address), next) in saved.into_iter().zip(followers(&ids)) {
        let distance = next.map_or(0, |next| next - u64::from(device.device.get()));
        let hop = u16::try_from(distance)
            .map_or(DeviceEntry::NEXT_MAX, |hop| hop.min(DeviceEntry::NEXT_MAX));
        if distance > u64::from(hop) && !table.indirect() {
            let stale = (address + ENTRY * u64::from(hop), distance - u64::from(hop));
            written(budget.clear(stale.0, stale.1, memory))?;
        }
        let entry = DeviceEntry::new()
            .with_valid(true)
            .with_next(hop)
            .with_itt_address(device.itt)
            .with_event_bits_minus_one(device.event_bits.saturating_sub(1));
        memory.write_u64(address, entry.into_bits())?;
    }
    Ok(ids)
}

/// Writes the events that use one of these collections, and returns their number. Leaves out other
/// events, because a reader refuses a device if it has an event whose collection isn't in the
/// collection table.
fn save_events(
    device: &DeviceState,
    collections: &[CollectionId],
    memory: &mut TableMemory<'_>,
    budget: &mut Budget,
) -> Result<usize, Errno> {
    let readable = |event: &&EventState| collections.binary_search(&event.collection).is_ok();
    let events = try_collect(device.events.iter().filter(readable))?;
    let ids = try_collect(events.iter().map(|event| u64::from(event.event.get())))?;
    let all = 1 << device.event_bits;
    if ids.is_empty() {
        // Check that the table is in memory, because the budget may be too small to clear the
        // table.
        memory.read_u64(device.itt + ENTRY * (all - 1))?;
    }
    budget.clear(device.itt, ids.first().copied().unwrap_or(all), memory)?;
    for (event, next) in events.iter().zip(followers(&ids)) {
        let id = u64::from(event.event.get());
        let distance =
            u16::try_from(next.map_or(0, |next| next - id)).map_err(|_| Errno::Invalid)?;
        let entry = TranslationEntry::new()
            .with_next(distance)
            .with_intid(event.intid.get())
            .with_collection(event.collection.get());
        memory.write_u64(device.itt + ENTRY * id, entry.into_bits())?;
    }
    Ok(events.len())
}

/// Iterates over the successors of the IDs; the last ID has none.
fn followers(ids: &[u64]) -> impl Iterator<Item = Option<u64>> {
    ids.iter().skip(1).copied().map(Some).chain([None])
}

/// Writes the collection table, and returns the written collections in ascending order. The table
/// includes unmapped collections that events use, because a reader refuses events of collections
/// that are not in the table.
fn save_collections(
    table: Baser,
    its: &ItsState,
    numbers: &Numbers,
    memory: &mut TableMemory<'_>,
) -> Result<Vec<CollectionId>, Errno> {
    let mut entries = Vec::new();
    for state in &its.collections {
        let number = numbers.number(state.target).ok_or(Errno::Invalid)?;
        try_push(&mut entries, (state.collection, u64::from(number)))?;
    }
    let used = its.devices.iter().flat_map(|device| &device.events).map(|event| event.collection);
    let mut used = try_collect(used)?;
    used.sort_unstable();
    used.dedup();
    let mapped = |id: &CollectionId| {
        its.collections.binary_search_by_key(id, |state| state.collection).is_ok()
    };
    for id in used.into_iter().filter(|id| !mapped(id)) {
        try_push(&mut entries, (id, UNMAPPED))?;
    }
    let all = entries.len();
    // The guest may have replaced the table with one that is too small for all collections.
    let room = if table.valid() { table.bytes() / ENTRY } else { 0 };
    entries.retain(|(id, _)| u64::from(id.get()) < room);
    write_collections(table.address()..table.address() + ENTRY * room, &mut entries, memory);
    add(&mut memory.left_out.collections, all - entries.len());
    let mut saved = try_collect(entries.into_iter().map(|(id, _)| id))?;
    saved.sort_unstable();
    Ok(saved)
}

/// Writes collections and their targets to a table, and removes collections from `entries` that a
/// reader will not find.
///
/// A reader stops at an invalid entry, so the list ends at the first entry that can't be written.
/// If that entry contains old data that a reader would take for valid, the list ends one entry
/// earlier.
fn write_collections(
    table: Range<u64>,
    entries: &mut Vec<(CollectionId, u64)>,
    memory: &mut TableMemory<'_>,
) {
    let (mut end, mut written) = (table.start, 0);
    for (collection, target) in entries.iter() {
        let entry = CollectionEntry::new()
            .with_valid(true)
            .with_collection(collection.get())
            .with_target(*target);
        if memory.write_u64(end, entry.into_bits()).is_err() {
            break;
        }
        end += ENTRY;
        written += 1;
    }
    entries.truncate(written);
    let goes_on = end < table.end
        && memory.write_u64(end, 0).is_err()
        && memory.read_u64(end).is_ok_and(|old| CollectionEntry::from_bits(old).valid());
    if goes_on && written > 0 && memory.write_u64(end - ENTRY, 0).is_ok() {
        entries.pop();
    }
}
