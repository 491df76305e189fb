//! Tests with machines that have small limits on mappings and were used before the restore. A state
//! must either fit and be restored, or be refused without side effects.

use super::board::{Board, CPUS, config};
use super::refusals::refused_by;
use doorbell_test_support::guest::{mapd, mapti, unmapd};
use gic_arch::IntId;
use gic_arch::its::CollectionId;
use msi_types::{DeviceId, EventId};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use vgic::saved_state::{
    DeviceState, EventState, LpiState, Object, Problem, RestoreError, SavedState,
};

/// Number of EventID bits of a device, and its mapped events.
type Device = (u8, BTreeSet<u32>);

/// Mappings of a machine, and LPIs that are pending at a redistributor without an event.
#[derive(Clone, Debug)]
struct Contents {
    devices: BTreeMap<u32, Device>,
    lpis: Vec<BTreeSet<u32>>,
}

fn device() -> impl Strategy<Value = Device> {
    (1..=16u8).prop_flat_map(|bits| (Just(bits), btree_set(0..1u32 << bits, 0..6)))
}

fn contents() -> impl Strategy<Value = Contents> {
    let lpis = vec(btree_set(prop_oneof![8192..8256u32, 8192..65536u32], 0..6), usize::from(CPUS));
    let id = prop_oneof![0..16u32, 0..65536u32];
    (btree_map(id, device(), 0..8), lpis).prop_map(|(devices, lpis)| Contents { devices, lpis })
}

/// Generates devices that a machine maps before the restore. Devices with even DeviceIDs are also
/// unmapped before the restore.
fn history() -> impl Strategy<Value = Vec<(u32, Device)>> {
    vec((0..4u32, device()), 0..6)
}

fn put(contents: &Contents, state: &mut SavedState) {
    let mut intid = 8192;
    let mut event = |event: u32| {
        intid += 1;
        let id = EventId::new(event);
        let mut state = EventState::new(id, IntId::new(intid), CollectionId::new(0));
        (state.pending, state.configuration) = (event.is_multiple_of(2), Some(0xa3));
        state
    };
    let devices = contents.devices.iter().map(|(id, (event_bits, events))| {
        let mut device = DeviceState::new(DeviceId::new(*id), *event_bits, 0x4010_0000);
        device.events = events.iter().map(|number| event(*number)).collect();
        device
    });
    state.its[0].devices = devices.collect();
    for (cpu, lpis) in state.cpus.iter_mut().zip(&contents.lpis) {
        let lpi = |intid: &u32| {
            let mut state = LpiState::new(IntId::new(*intid));
            state.configuration = Some(0xa3);
            state
        };
        cpu.redistributor.lpis = lpis.iter().map(lpi).collect();
    }
}

/// Merges each LPI that is pending without an event into an event with the same LPI and target CPU.
fn joined(mut state: SavedState) -> SavedState {
    let its = &mut state.its[0];
    let events = its.devices.iter_mut().flat_map(|device| &mut device.events);
    for event in events {
        let at =
            its.collections.iter().find(|mapped| mapped.collection == event.collection).unwrap();
        let cpu = state.cpus.iter_mut().find(|cpu| cpu.affinity == at.target).unwrap();
        let before = cpu.redistributor.lpis.len();
        cpu.redistributor.lpis.retain(|lpi| lpi.intid != event.intid);
        event.pending |= cpu.redistributor.lpis.len() < before;
    }
    state
}

fn use_up(board: &Board, history: Vec<(u32, Device)>) {
    for (device, (bits, events)) in history {
        board.queue([mapd(device, bits, 0x4010_0000)]);
        board.queue(events.iter().map(|event| mapti(device, *event, 8192 + event % 256, 0)));
        board.queue((device % 2 == 0).then_some(unmapd(device)));
        board.finish_queue();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_state_that_does_not_fit_has_no_effect(
        contents in contents(),
        history in history(),
        its_events in 32..700u32,
        its_devices in 1..12u32,
    ) {
        let mut saved = Board::running().save();
        put(&contents, &mut saved);
        let config = config().with_its_events(its_events).with_its_devices(its_devices);
        let mut board = Board::new(config);
        board.start();
        use_up(&board, history);
        let before = board.save();

        let outcome = board.try_restore(&saved);

        let no_room = RestoreError { object: Object::Machine, problem: Problem::NoRoom };
        match outcome {
            Ok(()) => prop_assert_eq!(board.save(), joined(saved)),
            Err(refused) => {
                prop_assert_eq!(refused, no_room);
                prop_assert_eq!(board.save(), before);
            }
        }
    }
}

#[test]
fn a_state_beyond_the_budgets_is_refused() {
    let small = |its_events, its_devices| {
        config().with_its_events(its_events).with_its_devices(its_devices)
    };
    let mut source = Board::running();
    source.run([mapd(1, 5, 0), mapd(2, 5, 0), mapd(3, 1, 0)]);
    source.run([mapti(1, 0, 8192, 0), mapti(2, 0, 8193, 0), mapti(3, 0, 8194, 0)]);
    let no_room = RestoreError { object: Object::Machine, problem: Problem::NoRoom };

    assert_eq!(refused_by(&mut Board::new(small(64, 16)), &mut source, |_| {}), no_room);
    assert_eq!(refused_by(&mut Board::new(small(128, 2)), &mut source, |_| {}), no_room);
    Board::over(small(128, 3), source.ram.clone()).restore(&source.save());
}

#[test]
fn a_restore_reuses_all_slots_in_use() {
    let mut source = Board::new(config().with_its_events(128));
    source.start();
    source.run((1..5).map(|device| mapd(device, 5, 0)));
    source.run((1..5).map(|device| mapti(device, 0, 8191 + device, 0)));
    let saved = source.save();

    source.restore(&saved);
    source.restore(&saved);

    assert_eq!(source.save(), saved);
}
