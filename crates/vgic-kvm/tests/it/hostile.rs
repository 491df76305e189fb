//! Tests with malicious memory contents and attributes. The view must not panic, and its work must
//! be bounded.

use crate::board::{
    COLLECTIONS, DEVICES, Levels, RAM, RAM_BYTES, SECOND_LEVEL, TRANSLATIONS, config, fresh, put,
    ram, restore_tables, through_a_machine, with_tables,
};
use crate::round_trip::{memory, states};
use doorbell_test_support::damage::{damaged, damages};
use gic_arch::IntId;
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;
use vgic::saved_state::LpiState;
use vgic_kvm::abi::Attribute;
use vgic_kvm::{KvmDevice, KvmView};

/// Generates table words that are likely to be interpreted as entries.
fn words() -> impl Strategy<Value = (u64, u64)> {
    let place = prop_oneof![
        Just(COLLECTIONS),
        Just(DEVICES),
        Just(SECOND_LEVEL),
        Just(SECOND_LEVEL + 0x1_0000),
        Just(TRANSLATIONS),
        Just(TRANSLATIONS + 0x1000),
    ];
    let address = (place, 0_u64..12).prop_map(|(table, index)| table + 8 * index);
    let itt = prop_oneof![Just(TRANSLATIONS), Just(TRANSLATIONS + 0x1000), 0..u64::from(u32::MAX)];
    let device = (itt, 0_u64..18, 0_u64..8)
        .prop_map(|(itt, bits, next)| 1 << 63 | next << 49 | itt >> 8 << 5 | bits);
    let event = (8190_u64..8300, 0_u64..4, 0_u64..8)
        .prop_map(|(lpi, icid, next)| next << 48 | lpi << 16 | icid);
    let collection = (0_u64..4, 0_u64..5).prop_map(|(icid, cpu)| 1 << 63 | cpu << 16 | icid);
    (address, prop_oneof![device, event, collection, any::<u64>()])
}

fn attributes() -> impl Strategy<Value = (KvmDevice, Attribute)> {
    let device =
        prop_oneof![Just(KvmDevice::Gic), Just(KvmDevice::Its(0)), Just(KvmDevice::Its(1))];
    let number = (0_u64..3, prop_oneof![0_u64..0x400, 0x1_0000_u64..0x1_1000, any::<u64>()]);
    (device, 0_u32..9, number).prop_filter_map("unknown group", |(device, group, (cpu, number))| {
        Some((device, Attribute::decode(group, cpu << 32 | number).ok()?))
    })
}

proptest! {
    #[test]
    fn arbitrary_tables_are_restored_or_refused(
        words in vec(words(), 0..40),
        two in any::<bool>(),
    ) {
        let levels = if two { Levels::Two } else { Levels::Flat };
        let memory = ram();
        put(&memory, &words);
        if let Ok(state) = restore_tables(levels, &memory) {
            prop_assert_eq!(through_a_machine(&state, Arc::new(memory)).err(), None);
        }
    }

    #[test]
    fn arbitrary_attribute_writes_leave_a_restorable_state(
        accesses in vec((attributes(), any::<u64>()), 0..60),
        words in vec(words(), 0..20),
    ) {
        let memory = ram();
        put(&memory, &words);
        let config = config();
        let state = with_tables(Levels::Two, &memory);
        let mut view = KvmView::new(&config, state, &memory).unwrap();
        for ((device, attribute), value) in accesses {
            let _ = view.set(device, attribute, value);
            let _ = view.get(device, attribute);
        }
        let state = view.into_state();
        prop_assert_eq!(KvmView::new(&config, state.clone(), &memory).err(), None);
        prop_assert_eq!(through_a_machine(&state, Arc::new(memory)).err(), None);
    }

    #[test]
    fn a_damaged_state_is_refused_or_can_be_saved(
        (levels, state) in states(),
        by_itself in proptest::option::of((0_usize..3, 8190_u32..8200)),
        damages in damages(),
    ) {
        let mut state = state;
        if let Some((cpu, lpi)) = by_itself {
            state.cpus[cpu].redistributor.lpis.push(LpiState::new(IntId::new(lpi)));
        }
        let Some(damaged) = damaged(&state, &damages) else { return Ok(()) };
        let (config, memory) = (config(), memory(levels));
        let Ok(mut view) = KvmView::new(&config, damaged, &memory) else { return Ok(()) };
        // The save may fail, because a translation table may be outside memory.
        let saved = view.save();
        let (viewed, memory) = (view.into_state(), Arc::new(memory));
        prop_assert_eq!(through_a_machine(&viewed, memory.clone()).err(), None);
        let Ok(saved) = saved else { return Ok(()) };
        let mut view = KvmView::new(&config, fresh(), &*memory).unwrap();
        // The load may fail, because the tables may overlap.
        let _ = view.load(&saved);
        prop_assert_eq!(through_a_machine(&view.into_state(), memory.clone()).err(), None);
    }
}

#[test]
fn a_restore_limits_the_itt_entries_that_it_reads() {
    let memory = ram();
    // Each of 8192 devices has 2^16 events, all in the same table, which contains no mappings.
    for index in 0..0x2000 {
        put(&memory, &[(DEVICES + 8 * index, 1 << 63 | 1 << 49 | SECOND_LEVEL >> 8 << 5 | 15)]);
    }
    assert!(RAM + (RAM_BYTES as u64) >= SECOND_LEVEL + (8 << 16));
    assert_eq!(restore_tables(Levels::Flat, &memory).unwrap_err(), vgic_kvm::abi::Errno::NoMemory);
}
