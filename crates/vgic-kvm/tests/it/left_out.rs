//! Tests for tables outside memory. Such tables must not prevent a migration, and all contents that
//! a save or restore leaves out must be counted.

use crate::board::{
    COLLECTIONS, DEVICES, Levels, PENDING, RAM, RAM_BYTES, Ram, SECOND_LEVEL, TRANSLATIONS, config,
    fresh, put, ram, restore_tables_of, save_pending, save_tables, table, with_tables, word,
};
use crate::round_trip::{expected, memory, states};
use crate::tables::{VALID, collection, device, event, numbers, one_pending, small, two_devices};
use gic_arch::gits::TableKind;
use gic_arch::its::CollectionId;
use gic_arch::{IntId, gicr};
use msi_types::DeviceId;
use proptest::prelude::*;
use std::ops::Range;
use vgic::saved_state::{CollectionState, SavedState};
use vgic::{GuestMemory, MemoryFault};
use vgic_kvm::abi::{Attribute, Errno, control};
use vgic_kvm::{KvmDevice, KvmView, LeftOut};

/// Memory in which accesses to some ranges fail.
struct Partial<'a> {
    ram: &'a Ram,
    unreadable: Range<u64>,
    unwritable: Range<u64>,
}

impl<'a> Partial<'a> {
    fn without(ram: &'a Ram, range: Range<u64>) -> Self {
        Self { ram, unreadable: range.clone(), unwritable: range }
    }

    fn read_only(ram: &'a Ram, unwritable: Range<u64>) -> Self {
        Self { ram, unreadable: 0..0, unwritable }
    }
}

fn check(missing: &Range<u64>, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
    let is_missing = address < missing.end && missing.start < address + bytes.len() as u64;
    if is_missing { Err(MemoryFault { address }) } else { Ok(()) }
}

impl GuestMemory for Partial<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        check(&self.unreadable, address, bytes)?;
        self.ram.read(address, bytes)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        check(&self.unwritable, address, bytes)?;
        self.ram.write(address, bytes)
    }
}

/// Returns the counts of devices, events, collections and pending bits, and the first fault.
fn counts(left_out: LeftOut) -> ([u32; 4], Option<u64>) {
    let LeftOut { devices, events, collections, pending_bits, faults, first_fault, .. } = left_out;
    assert_eq!(faults == 0, first_fault.is_none());
    assert_eq!(left_out.is_empty(), left_out == LeftOut::default());
    ([devices, events, collections, pending_bits], first_fault.map(|fault| fault.address))
}

const NOTHING: ([u32; 4], Option<u64>) = ([0; 4], None);
const ELSEWHERE: u64 = 0xf000_0000;

/// Returns the devices that a restore finds, and checks that the restore left nothing out.
fn restored(state: SavedState, memory: &dyn GuestMemory) -> Vec<(u32, Vec<u32>)> {
    let (state, left_out) = restore_tables_of(state, memory).unwrap();
    assert_eq!(counts(left_out), NOTHING);
    numbers(&state)
}

#[test]
fn a_pending_table_outside_memory_does_not_fail_the_save() {
    let mut state = one_pending();
    for table in [0, RAM + RAM_BYTES as u64, 0xf_ffff_ffff_0000] {
        state.cpus[2].redistributor.pendbaser = table;
        let left_out = save_pending(state.clone(), &ram());
        // Neither the set bit of LPI 8200 nor the cleared bit of LPI 8201 could be written.
        assert_eq!(counts(left_out), ([0, 0, 0, 2], Some(table + 8200 / 8)));
        assert_eq!(left_out.faults, 2);
        assert_eq!(counts(save_tables(state.clone(), &ram())), NOTHING);
    }
}

#[test]
fn a_pending_lpi_without_a_table_is_counted() {
    let mut state = one_pending();
    let cpu = &mut state.cpus[2].redistributor;
    cpu.ctlr = gicr::Ctlr::from(cpu.ctlr).with_enable_lpis(false).into_bits();
    cpu.pendbaser = 0;
    assert_eq!(counts(save_pending(state, &ram())), ([0, 0, 0, 1], None));
}

#[test]
fn nothing_is_written_beyond_a_pending_table() {
    let (memory, first_beyond) = (ram(), 1 << 14);
    let mut state = one_pending();
    let table = gicr::Propbaser::new().with_id_bits_minus_one(13).into_bits();
    state.cpus[2].redistributor.propbaser = table;
    let after = PENDING + 0x2_0000 + u64::from(first_beyond) / 8;
    put(&memory, &[(after - 8, u64::MAX), (after, 0xaa)]);
    for (event, intid) in (first_beyond - 1..).take(2).enumerate() {
        state.its[0].devices[0].events[event].intid = IntId::new(intid);
    }
    // The last LPI with a bit in the table is not pending. The first LPI beyond the table is
    // pending.
    for (event, pending) in [false, true].into_iter().enumerate() {
        state.its[0].devices[0].events[event].pending = pending;
    }
    assert_eq!(counts(save_pending(state, &memory)), ([0, 0, 0, 1], None));
    assert_eq!((word(&memory, after - 8), word(&memory, after)), (u64::MAX >> 1, 0xaa));
}

#[test]
fn a_pending_bit_that_cannot_be_written_is_counted() {
    let (ram, table) = (ram(), PENDING + 0x2_0000);
    let memory = Partial::read_only(&ram, table..table + 0x1_0000);
    // Only the bit of LPI 8200 is counted: the bit of LPI 8201 is already clear, so it is not
    // written.
    assert_eq!(
        counts(save_pending(one_pending(), &memory)),
        ([0, 0, 0, 1], Some(table + 8200 / 8))
    );
}

#[test]
fn pending_bits_that_a_restore_cannot_read_or_clear_are_counted() {
    let (ram, bit) = (small(), PENDING + 0x1_0000 + 8200 / 8);
    put(&ram, &[(bit, 1)]);
    let memories = [
        (Partial::without(&ram, bit..bit + 1), false),
        (Partial::read_only(&ram, bit..bit + 1), true),
    ];
    for (memory, pending) in memories {
        let state = with_tables(Levels::Flat, &ram);
        let (state, left_out) = restore_tables_of(state, &memory).unwrap();
        assert_eq!(counts(left_out), ([0, 0, 0, 1], Some(bit)));
        assert_eq!(state.its[0].devices[0].events[0].pending, pending);
    }
}

/// Saves and restores devices 3 and 7, one of which has its translation table at `itt`. Returns the
/// counts and the restored devices.
fn with_a_device_at(index: usize, itt: u64) -> (LeftOut, Vec<u32>) {
    let memory = ram();
    let mut state = two_devices();
    let device = &mut state.its[0].devices[index];
    (device.itt, device.event_bits) = (itt, 16);
    let left_out = save_tables(state.clone(), &memory);
    (left_out, restored(state, &memory).into_iter().map(|(device, _)| device).collect())
}

#[test]
fn a_device_whose_itt_is_outside_memory_is_left_out() {
    assert_eq!(with_a_device_at(1, TRANSLATIONS + 0x1000), (LeftOut::default(), vec![3, 7]));
    let ends_too_late = RAM + RAM_BYTES as u64 - 0x1000;
    let last_entry = ends_too_late + 8 * 0xffff;
    let (left_out, devices) = with_a_device_at(1, ends_too_late);
    assert_eq!((counts(left_out), devices), (([1, 0, 0, 0], Some(last_entry)), vec![3]));
    for (index, left) in [(0, 7), (1, 3)] {
        let (left_out, devices) = with_a_device_at(index, ELSEWHERE);
        let (counted, first) = counts(left_out);
        assert_eq!((counted, devices), ([1, 0, 0, 0], vec![left]));
        assert!(first.is_some_and(|first| first >= ELSEWHERE));
    }
}

#[test]
fn a_device_beyond_the_table_is_left_out() {
    let memory = ram();
    let mut state = two_devices();
    state.its[0].devices[1].device = DeviceId::new(0x2000);
    assert_eq!(counts(save_tables(state.clone(), &memory)), ([1, 0, 0, 0], None));
    assert_eq!(restored(state, &memory), [(3, vec![1, 3])]);
}

#[test]
fn a_device_without_a_second_level_is_left_out() {
    let saved = |first_level: &[(u64, u64)], missing| {
        let ram = ram();
        let mut state = with_tables(Levels::Two, &ram);
        state.its[0].collections = two_devices().its[0].collections.clone();
        state.its[0].devices = two_devices().its[0].devices.clone();
        state.its[0].devices[1].device = DeviceId::new(0x2000);
        put(&ram, first_level);
        let left_out = save_tables(state.clone(), &Partial::without(&ram, missing));
        put(&ram, &[(DEVICES + 8, 0)]);
        assert_eq!(restored(state, &ram), [(3, vec![1, 3])]);
        counts(left_out)
    };
    let second = DEVICES + 8;
    assert_eq!(saved(&[(second, 0)], 0..0), ([1, 0, 0, 0], None));
    assert_eq!(saved(&[(second, VALID | ELSEWHERE)], 0..0), ([1, 0, 0, 0], Some(ELSEWHERE)));
    assert_eq!(saved(&[], second..second + 8), ([1, 0, 0, 0], Some(second)));
    let entry = SECOND_LEVEL + 0x1_0000;
    assert_eq!(saved(&[], entry..entry + 8), ([1, 0, 0, 0], Some(entry)));
}

#[test]
fn a_device_table_outside_memory_does_not_block_migration() {
    let mut state = two_devices();
    let memory = ram();
    state.its[0].baser[0] = table(TableKind::Devices, ELSEWHERE).into_bits();
    assert_eq!(
        counts(save_tables(state.clone(), &memory)),
        ([2, 0, 0, 0], Some(ELSEWHERE + 8 * 3))
    );
    let (state, left_out) = restore_tables_of(state, &memory).unwrap();
    assert_eq!((numbers(&state), counts(left_out)), (vec![], ([0; 4], Some(ELSEWHERE))));
}

#[test]
fn events_without_a_collection_table_are_left_out() {
    let mut state = two_devices();
    let collections = table(TableKind::Collections, ELSEWHERE);
    for (valid, first) in [(true, Some(ELSEWHERE)), (false, None)] {
        let memory = ram();
        // An ITS without a collection table can't have mapped collections.
        state.its[0].collections.retain(|_| valid);
        state.its[0].baser[1] = collections.with_valid(valid).into_bits();
        let left_out = save_tables(state.clone(), &memory);
        assert_eq!(counts(left_out), ([0, 2, 2, 0], first));
        let (state, left_out) = restore_tables_of(state.clone(), &memory).unwrap();
        assert_eq!(numbers(&state), [(3, vec![]), (7, vec![])]);
        assert_eq!((state.its[0].collections.len(), counts(left_out)), (0, ([0; 4], first)));
    }
}

/// Returns `two_devices` whose events 1 and 3 use collections 5 and `second`, both mapped.
fn with_collection(second: u16) -> SavedState {
    let mut state = two_devices();
    let (collection, target) = (CollectionId::new(second), state.cpus[0].affinity);
    state.its[0].collections.push(CollectionState::new(collection, target));
    state.its[0].devices[0].events[1].collection = collection;
    state
}

fn collections(state: &SavedState) -> Vec<u16> {
    state.its[0].collections.iter().map(|state| state.collection.get()).collect()
}

#[test]
fn only_the_collection_beyond_its_table_is_left_out() {
    let memory = ram();
    let state = with_collection(0x2000);
    assert_eq!(counts(save_tables(state.clone(), &memory)), ([0, 1, 1, 0], None));
    let (state, left_out) = restore_tables_of(state, &memory).unwrap();
    assert_eq!((collections(&state), counts(left_out)), (vec![5], NOTHING));
    assert_eq!(numbers(&state), [(3, vec![1]), (7, vec![])]);
}

/// Saves collections 5 and 6 and restores them. Returns the restored collections, the restored
/// events of device 3, and the save's counts. Before the save, the table contains the entry `old`.
fn collections_in(missing: Range<u64>, is_readable: bool, old: u64) -> SavedCollections {
    let ram = ram();
    let memory = Partial {
        ram: &ram,
        unreadable: if is_readable { 0..0 } else { missing.clone() },
        unwritable: missing,
    };
    put(&ram, &[1, 2].map(|index| (COLLECTIONS + 8 * index, old)));
    let left_out = save_tables(with_collection(6), &memory);
    let (state, _) = restore_tables_of(with_collection(6), &memory).unwrap();
    let events = numbers(&state).swap_remove(0).1;
    (collections(&state), events, counts(left_out))
}

type SavedCollections = (Vec<u16>, Vec<u32>, ([u32; 4], Option<u64>));

#[test]
fn collections_from_the_first_failing_write_on_are_left_out() {
    let at = |index: u64| COLLECTIONS + 8 * index;
    let first = || (vec![5], vec![1], ([0, 1, 1, 0], Some(at(1))));
    assert_eq!(collections_in(at(1)..at(9), false, 0), first());
    assert_eq!(collections_in(at(1)..at(2), true, 0), first());
    assert_eq!(
        collections_in(at(0)..at(1), false, 0),
        (vec![], vec![], ([0, 2, 2, 0], Some(at(0))))
    );
    // No collection is lost if only the entry after the last collection can't be written.
    assert_eq!(
        collections_in(at(2)..at(3), false, 0),
        (vec![5, 6], vec![1, 3], ([0; 4], Some(at(2))))
    );
}

#[test]
fn stale_entries_do_not_extend_the_collection_table() {
    let at = |index: u64| COLLECTIONS + 8 * index;
    // A restore would refuse a table with a second entry for collection 5.
    let old = collection(5, 0);
    assert_eq!(
        collections_in(at(2)..at(3), true, old),
        (vec![5], vec![1], ([0, 1, 1, 0], Some(at(2))))
    );
    assert_eq!(
        collections_in(at(1)..at(3), true, old),
        (vec![], vec![], ([0, 2, 2, 0], Some(at(1))))
    );
}

#[test]
fn tables_that_a_restore_cannot_read_are_counted() {
    let ram = small();
    let restored = |levels, missing: Range<u64>| {
        let state = with_tables(levels, &ram);
        let (state, left_out) = restore_tables_of(state, &Partial::without(&ram, missing)).unwrap();
        (state.its[0].devices.len(), left_out.faults, counts(left_out))
    };
    let end = RAM + RAM_BYTES as u64;
    assert_eq!(restored(Levels::Flat, 0..0), (1, 0, NOTHING));
    assert_eq!(restored(Levels::Flat, DEVICES..end), (0, 2, ([0; 4], Some(COLLECTIONS))));
    assert_eq!(restored(Levels::Two, DEVICES..COLLECTIONS), (0, 8, ([0; 4], Some(DEVICES))));
    let page = SECOND_LEVEL + 0x1_0000;
    assert_eq!(restored(Levels::Two, page..page + 8), (0, 1, ([0; 4], Some(page))));
}

#[test]
fn a_failed_restore_reports_the_memory_fault() {
    let (ram, config) = (small(), config());
    put(&ram, &[(TRANSLATIONS, event(1, 8200, 5)), (DEVICES, device(0))]);
    let memory = Partial::without(&ram, TRANSLATIONS + 8..TRANSLATIONS + 16);
    let mut view = KvmView::new(&config, with_tables(Levels::Flat, &ram), &memory).unwrap();
    let restore = Attribute::Control(control::ITS_RESTORE_TABLES);
    for faults in [1, 2] {
        assert_eq!(view.set(KvmDevice::Its(0), restore, 0), Err(Errno::Fault));
        assert_eq!(view.left_out().faults, faults);
        assert_eq!(counts(view.left_out()), ([0; 4], Some(TRANSLATIONS + 8)));
    }
}

#[test]
fn missing_guest_memory_is_reported() {
    let (ram, config) = (ram(), config());
    let nowhere = Partial::without(&ram, 0..u64::MAX);
    let mut view = KvmView::new(&config, one_pending(), &ram).unwrap();
    let registers = view.save().unwrap();
    assert_eq!(counts(view.left_out()), NOTHING);
    let mut view = KvmView::new(&config, fresh(), &nowhere).unwrap();
    view.load(&registers).unwrap();
    assert_eq!(counts(view.left_out()), ([0; 4], Some(COLLECTIONS)));
    assert_eq!(
        view.left_out().to_string(),
        "left out 0 devices, 0 events, 0 collections and 0 pending bits; \
         2 memory faults, first: the guest has no memory at 0x40020000"
    );
    let mut view = KvmView::new(&config, one_pending(), &nowhere).unwrap();
    assert_eq!(view.save().unwrap(), registers);
    assert_eq!(counts(view.left_out()), ([2, 0, 1, 2], Some(COLLECTIONS)));
}

#[test]
fn the_left_out_counts_are_displayed_in_a_sentence() {
    assert_eq!(LeftOut::default().to_string(), "nothing was left out");
    assert_eq!(
        save_tables(with_collection(0x2000), &ram()).to_string(),
        "left out 0 devices, 1 event, 1 collection and 0 pending bits"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_migration_that_changes_the_state_is_reported_as_incomplete(
        (levels, state) in states(),
        place in prop::sample::select(
            vec![DEVICES, COLLECTIONS, PENDING, SECOND_LEVEL, TRANSLATIONS],
        ),
        (skipped, words) in (0_u64..0x400, 1_u64..0x1000),
        is_readable in any::<bool>(),
    ) {
        let (ram, config) = (memory(levels), config());
        let missing = place + 8 * skipped..place + 8 * (skipped + words);
        let unreadable = if is_readable { 0..0 } else { missing.clone() };
        let memory = Partial { ram: &ram, unreadable, unwritable: missing };
        let mut source = KvmView::new(&config, state.clone(), &memory).unwrap();
        let registers = source.save().unwrap();
        let mut destination = KvmView::new(&config, fresh(), &memory).unwrap();
        destination.load(&registers).unwrap();
        let is_whole = source.left_out().is_empty() && destination.left_out().is_empty();
        prop_assert!(!is_whole || destination.into_state() == expected(state));
    }
}
