//! Tests for saves whose tables overlap, or are large: a load finds what was saved, or the save
//! counts the differences.

use crate::board::{
    COLLECTIONS, DEVICES, ITS, Levels, PENDING, QUEUE, RAM, Ram, TRANSLATIONS, config, fresh, put,
    ram, with_tables, word,
};
use crate::round_trip::{expected, memory, states};
use gic_arch::IntId;
use gic_arch::gicr::Propbaser;
use gic_arch::gits::Cwriter;
use msi_types::DeviceId;
use proptest::collection::vec;
use proptest::prelude::*;
use vgic::GuestMemory;
use vgic::saved_state::{DeviceState, EventState, SavedState};
use vgic_kvm::abi::{Attribute, Errno, control};
use vgic_kvm::{KvmDevice, KvmRegister, KvmView, LeftOut};

const CONFIGURATIONS: u64 = RAM + 0x3_0000;

/// Saves a state in KVM's format.
fn saved(state: &SavedState, memory: &dyn GuestMemory) -> (Vec<KvmRegister>, LeftOut) {
    let config = config();
    let mut view = KvmView::new(&config, state.clone(), memory).unwrap();
    (view.save().unwrap(), view.left_out())
}

/// Saves tables and pending bits by single commands, and returns what was left out after the last.
fn saved_by_commands(state: &SavedState, memory: &dyn GuestMemory, bits_first: bool) -> LeftOut {
    let config = config();
    let mut view = KvmView::new(&config, state.clone(), memory).unwrap();
    let mut commands = [
        (KvmDevice::Its(0), control::ITS_SAVE_TABLES),
        (KvmDevice::Gic, control::SAVE_PENDING_TABLES),
    ];
    commands.rotate_left(bits_first.into());
    for (device, command) in commands {
        view.set(device, Attribute::Control(command), 0).unwrap();
    }
    view.left_out()
}

/// Loads the attributes and tables into the state of a fresh machine.
fn loaded(registers: &[KvmRegister], memory: &dyn GuestMemory) -> Result<SavedState, Errno> {
    let config = config();
    let mut view = KvmView::new(&config, fresh(), memory).unwrap();
    view.load(registers).map_err(|error| error.errno)?;
    Ok(view.into_state())
}

/// Returns a state with this number of devices of 16 EventID bits, whose translation tables are the
/// same and have no events.
fn with_large_devices(devices: u32, memory: &Ram) -> SavedState {
    let mut state = with_tables(Levels::Flat, memory);
    let device = |id| DeviceState::new(DeviceId::new(id), 16, TRANSLATIONS);
    state.its[0].devices = (0..devices).map(device).collect();
    state
}

#[test]
fn devices_with_every_event_id_survive_save_and_load() {
    let memory = ram();
    let state = with_large_devices(300, &memory);
    let (registers, left_out) = saved(&state, &memory);
    assert_eq!(left_out, LeftOut::default());
    assert!(loaded(&registers, &memory) == Ok(state));
}

#[test]
fn an_its_whose_tables_exceed_the_restore_limit_is_counted() {
    let memory = ram();
    let (registers, left_out) = saved(&with_large_devices(2049, &memory), &memory);
    let said = left_out.to_string();
    assert_eq!(said.split("; ").nth(1), Some("1 ITS whose tables a restore refuses"));
    assert_eq!(loaded(&registers, &memory), Err(Errno::NoMemory));
}

#[test]
fn a_reset_between_save_commands_is_not_counted_as_a_change() {
    let memory = ram();
    let config = config();
    let state = with_large_devices(2049, &memory);
    let mut view = KvmView::new(&config, state, &memory).unwrap();
    let its = KvmDevice::Its(0);
    let save = Attribute::Control(control::ITS_SAVE_TABLES);
    for _ in 0..2 {
        view.set(its, save, 0).unwrap();
        assert_eq!(view.left_out().refused, 1);
    }
    // After the reset, the tables in memory are those of an earlier state.
    view.set(its, Attribute::Control(control::ITS_RESET), 0).unwrap();
    view.set(KvmDevice::Gic, Attribute::Control(control::SAVE_PENDING_TABLES), 0).unwrap();
    let LeftOut { refused, changed, .. } = view.left_out();
    assert_eq!((refused, changed), (1, 0));
}

/// Generates addresses at, near and outside of the board's tables.
fn places() -> impl Strategy<Value = u64> {
    let tables = vec![QUEUE, DEVICES, COLLECTIONS, CONFIGURATIONS, PENDING, TRANSLATIONS];
    let inside = (prop::sample::select(tables), 0_u64..6);
    prop_oneof![9 => inside.prop_map(|(table, page)| table + 0x100 * page), 1 => Just(ITS)]
}

/// Returns the configurations of mapped LPIs, and the first commands of the queue.
fn kept(state: &SavedState, memory: &Ram, commands: u32) -> (Vec<u8>, Vec<u64>) {
    let events = state.its[0].devices.iter().flat_map(|device| &device.events);
    let byte = |event: &EventState| {
        let mut byte = [0];
        let offset = u64::from(event.intid.get() - IntId::LPI_BASE);
        memory.read(CONFIGURATIONS + offset, &mut byte).unwrap();
        byte[0]
    };
    let words = (QUEUE..).step_by(8).take(4 * commands as usize);
    (events.map(byte).collect(), words.map(|address| word(memory, address)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_load_restores_all_state_that_a_save_does_not_report_lost(
        (levels, mut state) in states(),
        itts in vec(prop::option::weighted(0.3, places()), 6),
        shared_pending_table in prop::bool::weighted(0.1),
        waiting in 0_u32..8,
        bits_first in prop::option::of(any::<bool>()),
    ) {
        let (memory, other) = (memory(levels), memory(levels));
        put(&memory, &[(CONFIGURATIONS, u64::MAX), (QUEUE, u64::MAX), (QUEUE + 0x100, 5)]);
        for (device, itt) in state.its[0].devices.iter_mut().zip(itts) {
            device.itt = itt.unwrap_or(device.itt);
        }
        for cpu in &mut state.cpus {
            let table = Propbaser::new().with_id_bits_minus_one(15).with_address(CONFIGURATIONS);
            cpu.redistributor.propbaser = table.into_bits();
            if shared_pending_table {
                cpu.redistributor.pendbaser = PENDING;
            }
        }
        state.its[0].cwriter = Cwriter::at_offset(32 * waiting).into_bits();
        let before = kept(&state, &memory, waiting);
        let (registers, left_out) = match bits_first {
            None => saved(&state, &memory),
            // Attributes don't depend on memory.
            Some(first) => (saved(&state, &other).0, saved_by_commands(&state, &memory, first)),
        };
        let after = kept(&state, &memory, waiting);
        let found = loaded(&registers, &memory);
        prop_assert_eq!(found.is_err(), left_out.refused > 0, "{} but {:?}", left_out, found);
        let is_same = after == before && found == Ok(expected(state));
        prop_assert_eq!(is_same, left_out.is_empty(), "{}", left_out);
    }
}
