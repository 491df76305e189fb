//! Tests that machines and states that KVM can't represent are refused, with a distinct error for
//! each limit.

use crate::board::{
    Levels, PENDING, config, fresh, ram, restore_machine, save_machine, with_tables, word,
};
use gic_arch::gicd::Irouter;
use gic_arch::gits::Creadr;
use gic_arch::its::CollectionId;
use gic_arch::{Affinity, IntId, gicd, gicr};
use msi_types::{DeviceId, EventId};
use std::sync::Arc;
use vgic::its::{Coherence, ItsConfig, PageSizes, RedistributorNaming, TableLevels};
use vgic::saved_state::{
    CollectionState, DeviceState, EventState, InterruptState, LpiState, Problem, SavedState,
};
use vgic::{AccessWidth, ConfigError, SecurityView, Vgic, VgicConfig};
use vgic_kvm::{KvmView, OutsideKvm, check_machine};

/// Asks whether KVM can have a machine, as a monitor does before it stops the machine. A view must
/// give the same answer, unless no machine can have the configuration.
fn machine(change: impl FnOnce(&mut VgicConfig)) -> Option<OutsideKvm> {
    let mut config = config();
    change(&mut config);
    let viewed = KvmView::new(&config, shapeless(), &ram()).err();
    let is_invalid = matches!(viewed, Some(OutsideKvm::Config(_)));
    assert_eq!(check_machine(&config).err(), viewed.filter(|_| !is_invalid));
    viewed
}

/// Returns a state that machines of other shapes accept, too.
fn shapeless() -> SavedState {
    let SavedState { distributor, cpus, its, .. } = fresh();
    SavedState::without_shape(distributor, cpus, its)
}

fn its(change: impl FnOnce(&mut ItsConfig)) -> Option<&'static str> {
    match machine(|config| change(&mut config.its[0])) {
        Some(OutsideKvm::Its { what, .. }) => Some(what),
        _ => None,
    }
}

fn state(change: impl FnOnce(&mut SavedState)) -> Option<OutsideKvm> {
    let (config, memory) = (config(), ram());
    let mut state = with_tables(Levels::Flat, &memory);
    change(&mut state);
    KvmView::new(&config, state, &memory).err()
}

pub(crate) fn interrupt(intid: u32) -> InterruptState {
    let mut state = InterruptState::new(IntId::new(intid));
    (state.group1, state.enabled) = (true, true);
    state
}

/// Returns `interrupt(intid)` after this change.
fn changed(intid: u32, change: impl FnOnce(&mut InterruptState)) -> InterruptState {
    let mut state = interrupt(intid);
    change(&mut state);
    state
}

#[test]
fn an_ordinary_state_is_within_kvms_limits() {
    assert_eq!(machine(|_| {}), None);
    assert_eq!(state(|_| {}), None);
}

#[test]
fn a_configuration_that_kvm_does_not_support_is_refused() {
    assert_eq!(machine(|config| config.priority_bits = 6), Some(OutsideKvm::PriorityBits(6)));
    assert_eq!(machine(|config| config.extended_spis = 32), Some(OutsideKvm::ExtendedRange));
    assert_eq!(machine(|config| config.extended_ppis = 32), Some(OutsideKvm::ExtendedRange));
    let two = machine(|config| config.security = SecurityView::NonSecure);
    assert_eq!(two, Some(OutsideKvm::TwoSecurityStates));
    assert_eq!(machine(|config| config.lpi_id_bits = Some(17)), Some(OutsideKvm::IntIdBits(17)));
    assert_eq!(machine(|config| config.direct_lpi = true), Some(OutsideKvm::DirectLpi));
    assert_eq!(
        machine(|config| config.coherence = Coherence::NonCoherent),
        Some(OutsideKvm::NotCoherent)
    );
    let far = Affinity::new(1, 0, 0, 0);
    assert_eq!(machine(|config| config.cpus[1].affinity = far), Some(OutsideKvm::Affinity(far)));
}

#[test]
fn an_its_configuration_that_kvm_does_not_support_is_refused() {
    assert_eq!(its(|its| its.device_id_bits = 17), Some("number of DeviceID bits"));
    assert_eq!(its(|its| its.event_id_bits = 17), Some("number of EventID bits"));
    let named = its(|its| its.redistributor_naming = RedistributorNaming::Address);
    assert_eq!(named, Some("naming of redistributors"));
    assert_eq!(its(|its| its.held_collections = 1), Some("number of held collections"));
    assert_eq!(its(|its| its.collection_table = None), Some("number of collection tables"));
    assert_eq!(its(|its| its.page_sizes = PageSizes::Any), Some("choice of page sizes"));
    assert_eq!(its(|its| its.coherence = Coherence::NonCoherent), Some("table coherence"));
    let format = its(|its| its.iidr = its.iidr.with_revision(1));
    assert_eq!(format, Some("table format (GITS_IIDR.Revision)"));
    assert_eq!(its(|its| its.device_table = TableLevels::Flat), None);
}

#[test]
fn a_gic_state_that_kvm_cannot_represent_is_refused() {
    let alone = gicd::Ctlr::new().with_enable_grp0(true).into_bits();
    assert_eq!(state(|state| state.distributor.ctlr = alone), Some(OutsideKvm::GroupZeroAlone));
    let any = Irouter::new().with_any_participating(true).into_bits();
    let listed = |interrupt| state(|state| state.distributor.interrupts = vec![interrupt]);
    let shared = IntId::new(40);
    let routed = listed(changed(40, |state| state.route = any));
    assert_eq!(routed, Some(OutsideKvm::OneOfN(shared)));
    let held = listed(changed(40, |state| state.message = true));
    assert_eq!(held, Some(OutsideKvm::MessageLevel(shared)));
    let edge = changed(20, |state| state.edge = true);
    let (cpu, intid) = (Affinity::from_packed(1), IntId::new(20));
    let private = state(|state| state.cpus[1].redistributor.interrupts = vec![edge]);
    assert_eq!(private, Some(OutsideKvm::EdgePpi { cpu, intid }));
    let declines = gicr::Ctlr::new().with_dpg1_ns(true).into_bits();
    let unwilling = state(|state| state.cpus[1].redistributor.ctlr |= declines);
    assert_eq!(unwilling, Some(OutsideKvm::Declines(cpu)));
}

#[test]
fn a_kvm_guest_cannot_make_ppis_edge_triggered() {
    assert!(config().level_ppis);
    for level_ppis in [true, false] {
        let config = config().with_level_ppis(level_ppis);
        let memory = Arc::new(ram());
        let (gic, mut vcpus) = Vgic::new(config.clone(), memory.clone(), Arc::new(|_| {})).unwrap();
        let (cpu, intid) = (config.cpus[0].affinity, IntId::new(20));
        let trigger = gicr::ICFGR.locate(intid).unwrap();
        let address = config.redistributors[0].base + u64::from(trigger.register().offset());
        gic.write_until_done(address, AccessWidth::Word, trigger.mask().into()).unwrap();
        let state = save_machine(&gic, &mut vcpus);
        let refused = KvmView::new(&config, state, &*memory).err();
        assert_eq!(refused, (!level_ppis).then_some(OutsideKvm::EdgePpi { cpu, intid }));
    }
}

#[test]
fn level_ppi_machines_refuse_states_with_edge_triggered_ppis() {
    let mut state = shapeless();
    state.cpus[1].redistributor.interrupts = vec![changed(20, |state| state.edge = true)];
    for (level_ppis, expected) in
        [(true, Err(Problem::Value { field: "trigger", value: 1 })), (false, Ok(()))]
    {
        let config = config().with_level_ppis(level_ppis);
        let (gic, mut vcpus) = Vgic::new(config, Arc::new(ram()), Arc::new(|_| {})).unwrap();
        let restored = restore_machine(&gic, &mut vcpus, &state);
        assert_eq!(restored.map_err(|error| error.problem), expected);
    }
}

#[test]
fn differing_propbasers_are_refused_if_lpis_are_enabled() {
    let cpu = Affinity::from_packed(1);
    let enabled = gicr::Ctlr::new().with_enable_lpis(true).into_bits();
    let other = |state: &mut SavedState| state.cpus[1].redistributor.propbaser = 0x4004_000f;
    assert_eq!(state(other), None);
    let both = state(|state| {
        other(state);
        state.cpus.iter_mut().for_each(|cpu| cpu.redistributor.ctlr |= enabled);
    });
    assert_eq!(both, Some(OutsideKvm::ConfigurationTables(cpu)));
}

#[test]
fn a_stalled_queue_is_refused() {
    let stalled = Creadr::new().with_stalled(true).into_bits();
    assert_eq!(
        state(|state| state.its[0].creadr = stalled),
        Some(OutsideKvm::Stalled(0x0808_0000))
    );
}

/// Adds an event with LPI 8200 in collection 5, which is mapped to CPU 0 or unmapped.
fn event(state: &mut SavedState, pending: bool, mapped: bool) {
    let (collection, target) = (CollectionId::new(5), state.cpus[0].affinity);
    let mut event = EventState::new(EventId::new(2), IntId::new(8200), collection);
    event.pending = pending;
    let mut device = DeviceState::new(DeviceId::new(9), 2, 0x4010_0000);
    device.events = vec![event];
    state.its[0].devices = vec![device];
    let collection = CollectionState::new(collection, target);
    state.its[0].collections = mapped.then_some(collection).into_iter().collect();
}

#[test]
fn pending_state_of_an_unmapped_collection_is_dropped() {
    for (is_mapped, bit) in [(true, 1), (false, 0)] {
        let (config, memory) = (config(), ram());
        let mut state = with_tables(Levels::Flat, &memory);
        event(&mut state, true, is_mapped);
        if !is_mapped {
            state.its[0].devices[0].events[0].stays_at = Some(state.cpus[0].affinity);
        }
        let mut view = KvmView::new(&config, state, &memory).unwrap();
        let saved = view.save().unwrap();
        assert_eq!(word(&memory, PENDING + 8200 / 8) & 1, bit);
        let mut restored = KvmView::new(&config, fresh(), &memory).unwrap();
        restored.load(&saved).unwrap();
        for state in [view.into_state(), restored.into_state()] {
            assert_eq!(state.its[0].devices[0].events[0].pending, is_mapped);
        }
    }
}

/// Converts a state to KVM's format and back. In the state, LPI 8200 is pending at CPU `cpu`
/// without an event, and its event targets CPU 0.
fn moved_with_pending(cpu: usize) -> SavedState {
    let (config, memory) = (config(), ram());
    let mut state = with_tables(Levels::Flat, &memory);
    event(&mut state, false, true);
    state.cpus[cpu].redistributor.lpis = vec![LpiState::new(IntId::new(8200))];
    let saved = KvmView::new(&config, state, &memory).unwrap().save().unwrap();
    let mut view = KvmView::new(&config, fresh(), &memory).unwrap();
    view.load(&saved).unwrap();
    view.into_state()
}

#[test]
fn an_lpi_moved_by_movall_is_saved_as_pending_at_its_event() {
    for cpu in [0, 1] {
        let moved = moved_with_pending(cpu);
        assert!(moved.its[0].devices[0].events[0].pending, "pending at CPU {cpu}");
        assert!(moved.cpus.iter().all(|cpu| cpu.redistributor.lpis.is_empty()));
    }
}

#[test]
fn a_pending_lpi_without_an_event_is_dropped() {
    let (config, memory) = (config(), ram());
    let mut state = with_tables(Levels::Flat, &memory);
    let lpis = vec![LpiState::new(IntId::new(8200))];
    state.cpus[1].redistributor.lpis = lpis.clone();
    state.cpus[2].redistributor.lpis = lpis;
    // The guest has not provided a pending table for this CPU.
    state.cpus[2].redistributor.pendbaser = 0;
    let mut view = KvmView::new(&config, state, &memory).unwrap();
    assert_eq!(view.save().map(|_| ()), Ok(()));
    assert_eq!(word(&memory, PENDING + 0x1_0000 + 8200 / 8), 0);
    assert!(view.into_state().cpus.iter().all(|cpu| cpu.redistributor.lpis.is_empty()));
}

/// Creates a view of a damaged state with two devices, and returns the reported problem.
fn damaged(damage: impl FnOnce(&mut SavedState)) -> Option<Problem> {
    let refused = state(|state| {
        event(state, false, true);
        let [device] = state.its[0].devices.as_slice() else { panic!("one device") };
        let mut other = device.clone();
        other.device = DeviceId::new(12);
        let collection = other.events[0].collection;
        other.events.push(EventState::new(EventId::new(3), IntId::new(8201), collection));
        state.its[0].devices.push(other);
        damage(state);
    });
    match refused {
        Some(OutsideKvm::State(error)) => Some(error.problem),
        _ => None,
    }
}

#[test]
fn the_error_for_a_damaged_state_names_its_problem() {
    let value = |field, value| Some(Problem::Value { field, value });
    let bits = |bits| damaged(move |state| state.its[0].devices[0].event_bits = bits);
    for wrong in [0, 17, 255] {
        assert_eq!(bits(wrong), value("number of EventID bits", wrong.into()));
    }
    assert_eq!(damaged(|state| state.its[0].devices.reverse()), Some(Problem::Order));
    assert_eq!(damaged(|state| state.its[0].devices[1].events.reverse()), Some(Problem::Order));
    let itt = u64::MAX - 7;
    assert_eq!(damaged(|state| state.its[0].devices[0].itt = itt), value("translation table", itt));
    let point = damaged(|state| state.cpus[0].interface.bpr0 = 255);
    assert_eq!(point, value("binary point of Group 0", 255));
    assert_eq!(damaged(|state| state.cpus.truncate(2)), Some(Problem::Absent));
    assert_eq!(damaged(|_| {}), None);
}

#[test]
fn an_invalid_configuration_is_refused() {
    let affinity = config().cpus[0].affinity;
    let twice = machine(|config| config.cpus[1].affinity = affinity);
    assert_eq!(twice, Some(OutsideKvm::Config(ConfigError::DuplicateAffinity(affinity))));
}
