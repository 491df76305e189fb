//! Tests for the tables, entry by entry, with vectors typed from `arm-vgic-its.rst`, "ITS Table ABI
//! REV0".

use crate::board::{
    COLLECTIONS, DEVICES, Levels, PAGE, PENDING, Ram, SECOND_LEVEL, TRANSLATIONS, config, put, ram,
    restore_tables, save_pending, save_tables, table, with_tables, word,
};
use gic_arch::gits::{TableKind, Typer};
use gic_arch::its::CollectionId;
use gic_arch::{IntId, gicr};
use msi_types::{DeviceId, EventId};
use vgic::saved_state::{CollectionState, DeviceState, EventState, SavedState};
use vgic_kvm::abi::{Attribute, Errno, control};
use vgic_kvm::{KvmDevice, KvmView, LeftOut};

pub(crate) const VALID: u64 = 1 << 63;

/// Returns a valid device entry with the first translation table and two EventID bits.
pub(crate) fn device(next: u64) -> u64 {
    VALID | next << 49 | TRANSLATIONS >> 8 << 5 | 1
}

pub(crate) fn event(next: u64, intid: u64, collection: u64) -> u64 {
    next << 48 | intid << 16 | collection
}

pub(crate) fn collection(number: u64, cpu: u64) -> u64 {
    VALID | cpu << 16 | number
}

/// Returns memory with one device whose event 0 is mapped, and with collection 5 mapped to CPU 1.
pub(crate) fn small() -> Ram {
    let memory = ram();
    put(
        &memory,
        &[(DEVICES, device(0)), (TRANSLATIONS, event(0, 8200, 5)), (COLLECTIONS, collection(5, 1))],
    );
    memory
}

pub(crate) fn numbers(state: &SavedState) -> Vec<(u32, Vec<u32>)> {
    let events =
        |device: &DeviceState| device.events.iter().map(|event| event.event.get()).collect();
    state.its[0].devices.iter().map(|device| (device.device.get(), events(device))).collect()
}

#[test]
fn saved_entries_match_the_documented_layout() {
    let memory = ram();
    assert_eq!(save_tables(two_devices(), &memory), LeftOut::default());
    assert_eq!(word(&memory, DEVICES + 8 * 3), device(4));
    assert_eq!(word(&memory, DEVICES + 8 * 7), VALID | (TRANSLATIONS + 0x1000) >> 8 << 5);
    assert_eq!(word(&memory, TRANSLATIONS + 8), event(2, 8200, 5));
    assert_eq!(word(&memory, TRANSLATIONS + 8 * 3), event(0, 8201, 6));
    assert_eq!(word(&memory, COLLECTIONS), collection(5, 2));
    // Collection 6 is unmapped, but the table must contain it because an event uses it.
    assert_eq!(word(&memory, COLLECTIONS + 8), VALID | 0xffff_ffff << 16 | 6);
    assert_eq!(word(&memory, COLLECTIONS + 16), 0);
}

/// Returns a state with two devices: 3 with events 1 and 3, and 7 without events.
pub(crate) fn two_devices() -> SavedState {
    let mut state = with_tables(Levels::Flat, &ram());
    let target = state.cpus[2].affinity;
    state.its[0].collections = vec![CollectionState::new(CollectionId::new(5), target)];
    let mapped = |event, intid, collection| {
        let collection = CollectionId::new(collection);
        EventState::new(EventId::new(event), IntId::new(intid), collection)
    };
    let mut first = DeviceState::new(DeviceId::new(3), 2, TRANSLATIONS);
    first.events = vec![mapped(1, 8200, 5), mapped(3, 8201, 6)];
    let second = DeviceState::new(DeviceId::new(7), 1, TRANSLATIONS + 0x1000);
    state.its[0].devices = vec![first, second];
    state
}

#[test]
fn a_save_hides_stale_table_entries() {
    let memory = ram();
    // The memory contains a stale entry before the first device, before the first event, and in the
    // table of the device without events.
    let old = [
        (DEVICES + 8, device(1)),
        (TRANSLATIONS, event(1, 9000, 5)),
        (TRANSLATIONS + 0x1008, event(0, 9001, 5)),
    ];
    put(&memory, &old);
    assert_eq!(save_tables(two_devices(), &memory), LeftOut::default());
    assert_eq!(
        numbers(&restore_tables(Levels::Flat, &memory).unwrap()),
        [(3, vec![1, 3]), (7, vec![])]
    );
}

#[test]
fn a_save_hides_stale_devices_when_the_distance_saturates() {
    let memory = ram();
    let mut state = two_devices();
    // The entry of device 20000 is in the third page of 64 KiB, and the distance to it saturates
    // at 16383.
    state.its[0].baser[0] |= 2;
    state.its[0].baser[1] = table(TableKind::Collections, SECOND_LEVEL).into_bits();
    state.its[0].devices[0].device = DeviceId::new(0);
    state.its[0].devices[1].device = DeviceId::new(20000);
    put(
        &memory,
        &[
            (DEVICES + 8 * 16383, device(1)),
            (DEVICES + 8 * 19999, device(1)),
            (DEVICES + 8, device(1)),
        ],
    );
    assert_eq!(save_tables(state, &memory), LeftOut::default());
    assert_eq!(word(&memory, DEVICES), device(16383));
    assert_eq!((word(&memory, DEVICES + 8 * 16383), word(&memory, DEVICES + 8 * 19999)), (0, 0));
    assert_ne!(word(&memory, DEVICES + 8 * 20000), 0);
    // A reader never reaches this entry.
    assert_eq!(word(&memory, DEVICES + 8), device(1));
}

#[test]
fn a_reader_skips_invalid_entries() {
    let memory = small();
    put(
        &memory,
        &[
            (DEVICES, 0),
            (DEVICES + 8 * 2, device(3)),
            (DEVICES + 8 * 5, device(0)),
            (DEVICES + 8 * 6, device(0)),
        ],
    );
    assert_eq!(
        numbers(&restore_tables(Levels::Flat, &memory).unwrap()),
        [(2, vec![0]), (5, vec![0])]
    );
}

#[test]
fn a_restore_reads_each_page_of_a_two_level_device_table() {
    let memory = small();
    put(
        &memory,
        &[
            (SECOND_LEVEL + 8 * 4, device(PAGE)),
            (SECOND_LEVEL + 0x1_0000, device(PAGE - 2)),
            (SECOND_LEVEL + 0x1_0000 + 8 * (PAGE - 2), device(0)),
            (SECOND_LEVEL + 0x2_0000, device(0)),
        ],
    );
    let found = numbers(&restore_tables(Levels::Two, &memory).unwrap());
    assert_eq!(found, [(4, vec![0]), (0x2000, vec![0]), (0x3ffe, vec![0])]);
}

#[test]
fn the_collection_table_ends_at_the_first_invalid_entry() {
    let memory = small();
    put(&memory, &[(COLLECTIONS + 8, collection(2, 0)), (COLLECTIONS + 24, collection(9, 0))]);
    let state = restore_tables(Levels::Flat, &memory).unwrap();
    let found: Vec<_> =
        state.its[0].collections.iter().map(|state| state.collection.get()).collect();
    assert_eq!(found, [2, 5]);
}

#[test]
fn a_restore_reads_pending_bits_from_the_targets_table() {
    let memory = small();
    let bit = |cpu: u64| PENDING + 0x1_0000 * cpu + 8200 / 8;
    put(&memory, &[(bit(1), 0xff), (bit(0), 0xff)]);
    let state = restore_tables(Levels::Flat, &memory).unwrap();
    assert!(state.its[0].devices[0].events[0].pending);
    assert_eq!((word(&memory, bit(1)), word(&memory, bit(0))), (0xfe, 0xff));
}

#[test]
fn an_lpi_of_two_events_is_pending_once() {
    let memory = small();
    put(
        &memory,
        &[
            (PENDING + 0x1_0000 + 8200 / 8, 1),
            (TRANSLATIONS, event(2, 8200, 5)),
            (TRANSLATIONS + 16, event(0, 8200, 5)),
        ],
    );
    let state = restore_tables(Levels::Flat, &memory).unwrap();
    let pending: Vec<_> =
        state.its[0].devices[0].events.iter().map(|event| event.pending).collect();
    assert_eq!(pending, [true, false]);
}

#[test]
fn two_events_of_one_lpi_survive_save_and_restore() {
    let memory = ram();
    let mut state = one_pending();
    state.its[0].devices[0].events[1].intid = IntId::new(8200);
    assert_eq!(save_tables(state.clone(), &memory), LeftOut::default());
    assert_eq!(save_pending(state, &memory), LeftOut::default());
    let restored = restore_tables(Levels::Flat, &memory).unwrap();
    let events = restored.its[0].devices[0].events.iter();
    let events: Vec<_> =
        events.map(|event| (event.event.get(), event.intid.get(), event.pending)).collect();
    assert_eq!(events, [(1, 8200, true), (3, 8200, false)]);
}

/// Returns `two_devices` with both events in collection 5, which is mapped to CPU 2; the first
/// event is pending. LPIs are enabled at CPU 2.
pub(crate) fn one_pending() -> SavedState {
    let mut state = two_devices();
    for event in &mut state.its[0].devices[0].events {
        event.collection = CollectionId::new(5);
    }
    state.its[0].devices[0].events[0].pending = true;
    let redistributor = &mut state.cpus[2].redistributor;
    let enabled = gicr::Ctlr::from(redistributor.ctlr).with_enable_lpis(true);
    redistributor.ctlr = enabled.into_bits();
    state
}

#[test]
fn the_pending_bit_of_an_lpi_is_the_or_of_its_events() {
    let memory = ram();
    let table = PENDING + 0x2_0000;
    let mut state = one_pending();
    // LPI 8200 is pending. In the table, the bit of LPI 8201 is still set although the LPI is not
    // pending.
    put(&memory, &[(table + 8200 / 8, 0b10)]);
    assert_eq!(save_pending(state.clone(), &memory), LeftOut::default());
    assert_eq!(word(&memory, table + 8200 / 8), 0b01);
    state.its[0].devices[0].events[1].intid = IntId::new(8200);
    put(&memory, &[(table + 8200 / 8, 0)]);
    assert_eq!(save_pending(state, &memory), LeftOut::default());
    assert_eq!(word(&memory, table + 8200 / 8), 0b01);
}

#[test]
fn a_save_keeps_pending_bits_of_a_disabled_redistributor() {
    let memory = ram();
    let table = PENDING + 0x2_0000;
    let mut state = one_pending();
    state.cpus[2].redistributor.ctlr = with_tables(Levels::Flat, &ram()).cpus[2].redistributor.ctlr;
    // LPI 8201 was pending when the guest disabled LPIs. LPI 8200 was moved to CPU 2 afterwards.
    put(&memory, &[(table + 8200 / 8, 0b10)]);
    assert_eq!(save_pending(state, &memory), LeftOut::default());
    assert_eq!(word(&memory, table + 8200 / 8), 0b11);
}

#[test]
fn a_collection_beyond_the_limit_is_refused() {
    for (bits, outcome) in [(3, Ok(())), (2, Err(Errno::Invalid))] {
        let memory = small();
        let mut config = config();
        config.its[0].collection_id_bits = Some(bits);
        let mut state = with_tables(Levels::Flat, &memory);
        let typer = Typer::from(state.its[0].typer)
            .with_cil(true)
            .with_collection_id_bits_minus_one(bits - 1);
        state.its[0].typer = typer.into_bits();
        put(&memory, &[(COLLECTIONS, collection(5, 0))]);
        let mut view = KvmView::new(&config, state, &memory).unwrap();
        assert_eq!(
            view.set(KvmDevice::Its(0), Attribute::Control(control::ITS_RESTORE_TABLES), 0),
            outcome
        );
    }
}

#[test]
fn a_refused_restore_leaves_the_pending_table_unchanged() {
    let memory = small();
    put(
        &memory,
        &[
            (PENDING + 0x1_0000 + 8200 / 8, 1),
            (TRANSLATIONS, event(1, 8200, 5)),
            (TRANSLATIONS + 8, event(0, 1, 5)),
        ],
    );
    assert_eq!(restore_tables(Levels::Flat, &memory).unwrap_err(), Errno::Invalid);
    assert_eq!(word(&memory, PENDING + 0x1_0000 + 8200 / 8), 1);
}
