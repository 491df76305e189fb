//! Tests with an exhausted heap. Every call must return an error instead of aborting.

use crate::board::{Levels, Ram, TRANSLATIONS, config, fresh, ram, with_tables};
use doorbell_test_support::{after_failures, outside, until_it_succeeds};
use gic_arch::IntId;
use gic_arch::its::CollectionId;
use msi_types::{DeviceId, EventId};
use vgic::saved_state::{CollectionState, DeviceState, EventState, LpiState, Problem, SavedState};
use vgic::{ConfigError, OutOfMemory, VgicConfig};
use vgic_kvm::abi::Errno;
use vgic_kvm::{KvmError, KvmRegister, KvmView, OutsideKvm};

/// Returns a state with two devices, one of which has 20 events. One LPI is pending at a
/// redistributor that is not the target of its event.
fn running(memory: &Ram) -> SavedState {
    let mut state = with_tables(Levels::Flat, memory);
    let collections = (0..3).map(CollectionId::new).zip(&state.cpus);
    state.its[0].collections = collections
        .map(|(collection, cpu)| CollectionState::new(collection, cpu.affinity))
        .collect();
    let events = (0..20_u16).map(|index| {
        let event = EventId::new(u32::from(index) * 9);
        let intid = IntId::new(8192 + u32::from(index));
        EventState::new(event, intid, CollectionId::new(index % 3))
    });
    let mut large = DeviceState::new(DeviceId::new(0x300), 8, TRANSLATIONS + 0x100);
    large.events = events.collect();
    state.its[0].devices = vec![DeviceState::new(DeviceId::new(1), 3, TRANSLATIONS), large];
    state.cpus[2].redistributor.lpis = vec![LpiState::new(IntId::new(8193))];
    state
}

fn is_no_memory(error: KvmError) {
    assert_eq!(error.errno, Errno::NoMemory);
}

fn viewed<'a>(config: &'a VgicConfig, state: &SavedState, memory: &'a Ram) -> KvmView<'a> {
    KvmView::new(config, state.clone(), memory).unwrap()
}

fn saved(config: &VgicConfig, state: &SavedState, memory: &Ram) -> (Vec<KvmRegister>, u32) {
    let save = || outside(|| viewed(config, state, memory)).save();
    until_it_succeeds(save, is_no_memory)
}

#[test]
fn creating_a_view_without_heap_fails() {
    let (config, memory) = (config(), &ram());
    let state = running(memory);
    let view = || KvmView::new(&config, outside(|| state.clone()), memory).map(drop);
    after_failures(40, view, |error| match error {
        OutsideKvm::Config(error) => assert_eq!(error, ConfigError::OutOfMemory(OutOfMemory)),
        OutsideKvm::State(error) => assert_eq!(error.problem, Problem::OutOfMemory),
        error => panic!("{error}"),
    });
}

#[test]
fn a_save_without_heap_returns_enomem() {
    let (config, memory) = (config(), &ram());
    let (registers, failures) = saved(&config, &running(memory), memory);
    assert!(registers.len() > 100 && failures >= 5, "{failures} allocations failed");
}

#[test]
fn a_load_without_heap_returns_enomem() {
    let (config, memory) = (config(), &ram());
    let (state, fresh) = (running(memory), fresh());
    let (registers, _) = saved(&config, &state, memory);
    let load = || {
        let mut view = outside(|| viewed(&config, &fresh, memory));
        view.load(&registers).map(|()| view.into_state())
    };
    let loaded = after_failures(40, load, |error| {
        is_no_memory(error);
        // Write the pending bits to memory again, because the load cleared them.
        saved(&config, &state, memory);
    });
    assert_eq!(loaded.its[0].devices.len(), 2);
    let events = loaded.its.iter().flat_map(|its| &its.devices).flat_map(|device| &device.events);
    assert_eq!(events.filter(|event| event.pending).count(), 1);
}
