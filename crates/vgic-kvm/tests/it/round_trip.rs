//! Converts states to KVM's attributes and tables and back, and checks that they are unchanged.

use crate::board::{
    CPUS, Levels, Ram, SPIS, TRANSLATIONS, config, fresh, put, ram, through_a_machine, with_tables,
    word,
};
use gic_arch::its::CollectionId;
use gic_arch::{Affinity, IntId, IntIdClass, gicd, gicr, icc};
use msi_types::{DeviceId, EventId};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vgic::saved_state::{
    CollectionState, CpuState, DeviceState, EventState, InterruptState, SavedState,
};
use vgic_kvm::KvmView;

fn affinities() -> impl Strategy<Value = Affinity> {
    (0..u32::from(CPUS)).prop_map(Affinity::from_packed)
}

/// Generates an interrupt in any state that KVM can hold.
fn interrupt(intid: IntId) -> impl Strategy<Value = InterruptState> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (flags, any::<u8>(), affinities()).prop_map(
        move |((group1, edge, latch, line, active), priority, cpu)| {
            let edge = match intid.class() {
                IntIdClass::Sgi => true,
                IntIdClass::Ppi => false,
                _ => edge,
            };
            let mut state = InterruptState::new(intid);
            // Enable the interrupt, because a state lists only interrupts that differ from their
            // reset state.
            (state.group1, state.enabled, state.active) = (group1, true, active);
            (state.priority, state.edge) = (priority & 0xf8, edge);
            (state.latch, state.line) = (latch && (edge || !active), line && !edge);
            state.route = if intid.is_shared() { cpu.mpidr() } else { 0 };
            state
        },
    )
}

fn interrupts(intids: std::ops::Range<u32>) -> impl Strategy<Value = Vec<InterruptState>> {
    proptest::sample::subsequence(intids.collect::<Vec<_>>(), 0..8).prop_flat_map(|intids| {
        intids.into_iter().map(|intid| interrupt(IntId::new(intid))).collect::<Vec<_>>()
    })
}

/// Binary points and priority mask, group enables and `EOImode`, and active priorities.
type Interface = ((u8, u8, u8), (bool, bool, bool), [u32; 2]);

fn interface() -> impl Strategy<Value = Interface> {
    let points = (2_u8..8, 3_u8..8, any::<u8>());
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (points, flags, any::<[u32; 2]>())
}

/// Devices with their EventID bits and, by EventID, a collection and the pending state.
type Devices = BTreeMap<u16, (u8, BTreeMap<u16, (prop::sample::Index, bool)>)>;

#[derive(Debug)]
struct Mappings {
    levels: Levels,
    collections: BTreeMap<u16, Affinity>,
    /// Collection that is unmapped although events use it.
    unmapped: u16,
    devices: Devices,
}

fn mappings(levels: Levels) -> impl Strategy<Value = Mappings> {
    let bound = if levels == Levels::Two { u16::MAX } else { 0x1fff };
    let events = (1_u8..9).prop_flat_map(|bits| {
        (
            Just(bits),
            btree_map(0..1_u16 << bits, (any::<prop::sample::Index>(), any::<bool>()), 0..6),
        )
    });
    let collections = btree_map(0_u16..0x2000, affinities(), 1..5);
    (collections, 0_u16..0x2000, btree_map(0..=bound, events, 0..6)).prop_map(
        move |(collections, unmapped, devices)| Mappings { levels, collections, unmapped, devices },
    )
}

fn levels() -> impl Strategy<Value = Levels> {
    prop_oneof![Just(Levels::Flat), Just(Levels::Two)]
}

/// Generates a state, together with the layout of its tables.
pub(crate) fn states() -> impl Strategy<Value = (Levels, SavedState)> {
    levels().prop_flat_map(|levels| (Just(levels), states_with(levels)))
}

/// Generates two states with tables at the same addresses.
fn pairs() -> impl Strategy<Value = (Levels, SavedState, SavedState)> {
    levels().prop_flat_map(|levels| (Just(levels), states_with(levels), states_with(levels)))
}

fn states_with(levels: Levels) -> impl Strategy<Value = SavedState> {
    let cpus = vec((interrupts(0..32), interface(), any::<bool>()), usize::from(CPUS));
    (mappings(levels), interrupts(32..32 + SPIS), cpus, any::<bool>()).prop_map(
        |(mappings, shared, cpus, groups)| {
            let mut state = with_tables(mappings.levels, &ram());
            let enables = gicd::Ctlr::from(state.distributor.ctlr)
                .with_enable_grp1(true)
                .with_enable_grp0(groups);
            state.distributor.ctlr = enables.into_bits();
            state.distributor.interrupts = shared;
            for (cpu, (private, interface, lpis)) in state.cpus.iter_mut().zip(cpus) {
                put_cpu(cpu, private, interface, lpis);
            }
            put_mappings(&mut state, &mappings);
            state
        },
    )
}

fn put_cpu(
    cpu: &mut CpuState,
    private: Vec<InterruptState>,
    ((bpr0, bpr1, pmr), (igrpen0, igrpen1, split), active): Interface,
    lpis: bool,
) {
    let state = &mut cpu.interface;
    state.ctlr = icc::Ctlr::from(state.ctlr).with_eoi_mode(split).into_bits();
    (state.bpr0, state.bpr1, state.pmr) = (bpr0, bpr1, pmr & 0xf8);
    (state.igrpen0, state.igrpen1) = (igrpen0, igrpen1);
    (state.ap0r[0], state.ap1r[0]) = (active[0], active[1]);
    cpu.redistributor.interrupts = private;
    let control = gicr::Ctlr::from(cpu.redistributor.ctlr).with_enable_lpis(lpis);
    cpu.redistributor.ctlr = control.into_bits();
}

fn put_mappings(state: &mut SavedState, mappings: &Mappings) {
    let collection = CollectionId::new;
    let collections = mappings.collections.iter();
    state.its[0].collections =
        collections.map(|(id, target)| CollectionState::new(collection(*id), *target)).collect();
    let usable: Vec<_> = mappings.collections.keys().copied().chain([mappings.unmapped]).collect();
    let mut lpi = IntId::LPI_BASE;
    let devices = (TRANSLATIONS..).step_by(0x1000).zip(&mappings.devices);
    let devices = devices.map(|(itt, (id, (event_bits, events)))| {
        let events = events.iter().map(|(event, (index, pending))| {
            lpi += 1;
            let of = *index.get(&usable);
            let event = EventId::new((*event).into());
            let mut state = EventState::new(event, IntId::new(lpi), collection(of));
            state.pending = *pending && mappings.collections.contains_key(&of);
            state
        });
        let mut device = DeviceState::new(DeviceId::new((*id).into()), *event_bits, itt);
        device.events = events.collect();
        device
    });
    state.its[0].devices = devices.collect();
}

/// Returns memory in which the guest has set up the first level of the device table.
pub(crate) fn memory(levels: Levels) -> Ram {
    let memory = ram();
    with_tables(levels, &memory);
    memory
}

/// Converts a state to KVM's format, and from there into the state of a fresh machine.
pub(crate) fn moved(state: &SavedState, memory: &Ram) -> SavedState {
    moved_over(fresh(), state, memory)
}

fn moved_over(before: SavedState, state: &SavedState, memory: &Ram) -> SavedState {
    let config = config();
    let mut view = KvmView::new(&config, state.clone(), memory).unwrap();
    let saved = view.save().unwrap();
    assert!(view.left_out().is_empty(), "{}", view.left_out());
    let mut view = KvmView::new(&config, before, memory).unwrap();
    view.load(&saved).unwrap();
    assert!(view.left_out().is_empty(), "{}", view.left_out());
    view.into_state()
}

/// Returns the CPUs and LPIs that a guest finds pending once it has enabled LPIs on every CPU: the
/// pending LPIs of events, and the LPIs in the pending tables, which a redistributor reads when
/// LPIs are enabled.
fn found_once_enabled(state: &SavedState, memory: &Ram) -> BTreeSet<(Affinity, u32)> {
    let its = &state.its[0];
    let events = its.devices.iter().flat_map(|device| &device.events).filter(|it| it.pending);
    let mut found: BTreeSet<_> = events
        .map(|event| {
            let collection = its.collections.iter().find(|it| it.collection == event.collection);
            (collection.unwrap().target, event.intid.get())
        })
        .collect();
    for cpu in &state.cpus {
        let table = gicr::Pendbaser::from(cpu.redistributor.pendbaser).address();
        if !has_enabled_lpis(cpu) {
            let bits = word(memory, table + u64::from(IntId::LPI_BASE) / 8);
            let set = (0..64).filter(|bit| bits & 1 << bit != 0);
            found.extend(set.map(|bit| (cpu.affinity, IntId::LPI_BASE + bit)));
        }
    }
    found
}

fn has_enabled_lpis(cpu: &CpuState) -> bool {
    gicr::Ctlr::from(cpu.redistributor.ctlr).enable_lpis()
}

/// Returns the state as it comes back from KVM's format, which tells the CPU of an active SPI only
/// if a single CPU other than the SPI's target runs its priority.
pub(crate) fn expected(mut state: SavedState) -> SavedState {
    let spis = state.distributor.interrupts.clone();
    let running = |spi: &InterruptState, cpu: &CpuState| {
        // The lowest binary points, 2 and 3, make all five bits part of the group priority.
        let (active, ignored) = if spi.group1 {
            (cpu.interface.ap1r[0], cpu.interface.bpr1 - 3)
        } else {
            (cpu.interface.ap0r[0], cpu.interface.bpr0 - 2)
        };
        let group = |of: &InterruptState| (of.group1, of.priority >> 3 >> ignored);
        let is_active = active & 1 << (spi.priority >> 3 >> ignored << ignored) != 0;
        let same = |other: &&InterruptState| other.active && group(other) == group(spi);
        let explained = cpu.redistributor.interrupts.iter().filter(same).count();
        let targets = |other: &&InterruptState| other.route == cpu.affinity.mpidr();
        let rivals = spis.iter().filter(same).filter(targets).count();
        (is_active && explained == 0, rivals)
    };
    for spi in state.distributor.interrupts.iter_mut().filter(|spi| spi.active) {
        let of = |cpu: &CpuState| (cpu.affinity, running(spi, cpu));
        let all: Vec<_> = state.cpus.iter().map(of).filter(|(_, (runs, _))| *runs).collect();
        if all.iter().all(|(cpu, _)| cpu.mpidr() != spi.route) {
            let mut others = all.iter().filter(|(_, (_, rivals))| *rivals == 0);
            spi.active_at = others.next().filter(|_| others.next().is_none()).map(|(cpu, _)| *cpu);
        }
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_state_round_trips_through_attributes_and_tables((levels, state) in states()) {
        prop_assert_eq!(moved(&state, &memory(levels)), expected(state));
    }

    #[test]
    fn disabled_redistributors_keep_their_pending_tables(
        (levels, state) in states(),
        tables in any::<[u64; CPUS as usize]>(),
    ) {
        let memory = memory(levels);
        for (cpu, bits) in state.cpus.iter().zip(tables) {
            let table = gicr::Pendbaser::from(cpu.redistributor.pendbaser).address();
            put(&memory, &[(table + u64::from(IntId::LPI_BASE) / 8, bits)]);
        }
        let before = found_once_enabled(&state, &memory);
        let moved = moved(&state, &memory);
        prop_assert_eq!(found_once_enabled(&moved, &memory), before);
    }

    #[test]
    fn a_second_save_replaces_the_first(
        (levels, first, second) in pairs(),
    ) {
        let memory = memory(levels);
        moved(&first, &memory);
        prop_assert_eq!(moved(&second, &memory), expected(second));
    }

    #[test]
    fn a_load_replaces_the_previous_state_of_the_view(
        (levels, mut before, state) in pairs(),
    ) {
        // Disable the ITS and LPIs, because their table registers can't be written while they are
        // enabled.
        before.its[0].ctlr = fresh().its[0].ctlr;
        for (cpu, fresh) in before.cpus.iter_mut().zip(fresh().cpus) {
            cpu.redistributor.ctlr = fresh.redistributor.ctlr;
        }
        let memory = memory(levels);
        prop_assert_eq!(moved_over(before, &state, &memory), expected(state));
    }

    #[test]
    fn a_machine_restores_the_loaded_state((levels, state) in states()) {
        let memory = memory(levels);
        let mut again = through_a_machine(&moved(&state, &memory), Arc::new(memory)).unwrap();
        for event in again.its[0].devices.iter_mut().flat_map(|device| &mut device.events) {
            // KVM's tables contain neither the configuration of an LPI, which is in the guest's
            // configuration table, nor the CPU at which an event of an unmapped collection is
            // pending.
            (event.configuration, event.stays_at) = (None, None);
        }
        prop_assert_eq!(again, expected(state));
    }
}
