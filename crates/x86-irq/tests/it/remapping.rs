//! Tests the remapping layer with a unit that caches entries until they are invalidated.

use crate::board::{Board, Device, id_of, request};
use msi_types::{
    Cpu, IsolatingMechanism, Isolation, MoveOutcome, MsiError, MsiMessage, MsiParent, NotIsolated,
    Pending, RequesterId, Rewrite, Shape, negotiate,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use x86_irq::message::{ApicMessage, DeliveryMode, DestinationFormat};
use x86_irq::remapping::{
    ApicMode, CompatibilityFormat, EntryCache, InvalidationError, RemapFault, RemapMemory,
    RemapTable, RemapTableConfig, RemappedVectors, RemappedVectorsConfig, Source, SourceCheck,
    TableSize,
};
use x86_irq::{ApicId, Arrival, CpuVector};

const CPU0: Cpu = Cpu::new(0);
const CPU1: Cpu = Cpu::new(1);
const NIC: RequesterId = RequesterId::pci(1, 0, 0);
const ENTRIES: u32 = 32;

/// Memory, and the unit's cache of it, which is filled on read.
#[derive(Default)]
struct Unit {
    memory: Mutex<BTreeMap<u32, u64>>,
    cache: Mutex<BTreeMap<u32, u64>>,
    broken: Mutex<bool>,
}

/// The CPU's access to the memory.
#[derive(Clone)]
struct Direct(Arc<Unit>);

impl RemapMemory for Direct {
    fn read(&self, word: u32) -> u64 {
        assert!(word < ENTRIES * 2);
        self.0.memory.lock().unwrap().get(&word).copied().unwrap_or(0)
    }

    fn write(&self, word: u32, value: u64) {
        assert!(word < ENTRIES * 2);
        self.0.memory.lock().unwrap().insert(word, value);
    }
}

/// The unit's access, through its cache.
#[derive(Clone)]
struct Cached(Arc<Unit>);

impl RemapMemory for Cached {
    fn read(&self, word: u32) -> u64 {
        let fresh = Direct(self.0.clone()).read(word);
        *self.0.cache.lock().unwrap().entry(word).or_insert(fresh)
    }

    fn write(&self, _: u32, _: u64) {
        panic!("the unit must not write entries");
    }
}

impl EntryCache for Unit {
    fn invalidate(&self, first: u16, log2_count: u8) -> Result<(), InvalidationError> {
        assert!(u32::from(first).is_multiple_of(1 << log2_count), "the unit ignores low bits");
        if *self.broken.lock().unwrap() {
            return Err(InvalidationError { reason: "timeout" });
        }
        let words = u32::from(first) * 2..(u32::from(first) + (1 << log2_count)) * 2;
        self.cache.lock().unwrap().retain(|word, _| !words.contains(word));
        Ok(())
    }
}

struct Rig {
    board: Board,
    unit: Arc<Unit>,
    parent: Arc<RemappedVectors<Direct>>,
}

fn config() -> RemapTableConfig {
    config_of(5, ApicMode::X2apic)
}

fn config_of(log2_size: u8, mode: ApicMode) -> RemapTableConfig {
    RemapTableConfig::new(TableSize::from_log2(log2_size).unwrap(), mode)
}

impl Rig {
    fn new() -> Self {
        Self::with(config(), Source::pci)
    }

    fn with(table: RemapTableConfig, sources: fn(RequesterId) -> Option<Source>) -> Self {
        let board = Board::new(2);
        let unit = Arc::new(Unit::default());
        let parent = RemappedVectors::new(
            RemappedVectorsConfig::new(
                board.domain.clone(),
                RemapTable::new(table, Direct(unit.clone())),
                unit.clone(),
                0xfed9_0000,
            )
            .with_sources(Box::new(sources)),
        );
        let parent = Arc::new(parent.unwrap());
        Self { board, unit, parent }
    }

    fn with_device() -> (Self, Device) {
        let rig = Self::new();
        let device = rig.device();
        (rig, device)
    }

    /// Translates a message as the unit does, with its cache.
    fn translate(&self, from: RequesterId, message: MsiMessage) -> Result<CpuVector, RemapFault> {
        let table = RemapTable::new(config(), Cached(self.unit.clone()));
        let (id, delivery) = table.translate(from, message)?.physical().unwrap();
        let DeliveryMode::Fixed(vector) = delivery else { panic!("{delivery:?}") };
        let cpu = self.board.cpus().find(|cpu| id_of(*cpu) == id).unwrap();
        Ok(CpuVector { cpu, vector })
    }

    fn relocate(&self, device: &Device, to: Cpu, outcome: MoveOutcome) -> Result<(), MsiError> {
        let moved = self.parent.begin_move(&device.block, 0, to)?;
        assert_eq!(moved.message, None);
        self.parent.end_move(moved, outcome)
    }

    fn device(&self) -> Device {
        Device::new(&*self.parent, NIC.get(), Rewrite::Never, CPU0).unwrap()
    }
}

#[test]
fn a_failed_invalidation_keeps_the_old_target() {
    let (rig, device) = Rig::with_device();
    let place = rig.board.domain.cpu_vector(device.vector());
    *rig.unit.broken.lock().unwrap() = true;
    let error = rig.relocate(&device, CPU1, MoveOutcome::Written).unwrap_err();
    assert_eq!(error.to_string(), "interrupt remapping@fed90000, entry changed: timeout");
    assert_eq!(rig.board.domain.cpu_vector(device.vector()), place);
    // The table in memory must still have the old target, regardless of the unit's cache.
    let target = rig.parent.table().translate(NIC, device.message).unwrap();
    assert_eq!(target.destination, id_of(CPU0));
}

#[test]
fn a_remapped_move_needs_no_interrupt_to_clean_up() {
    let (rig, device) = Rig::with_device();
    rig.relocate(&device, CPU1, MoveOutcome::Written).unwrap();
    rig.board.clean_up(CPU0);
    assert_eq!(rig.board.domain.available_on(CPU0), 12);
}

#[test]
fn parts_of_a_block_are_freed_one_by_one() {
    let rig = Rig::new();
    let attachment = rig.parent.attach(NIC, 5).unwrap();
    let wanted = request(5, Shape::Independent, Rewrite::Never, CPU0);
    let block = rig.parent.allocate(&attachment, &wanted).unwrap();
    let messages: Vec<_> = (0..5).map(|index| rig.parent.compose(&block, index).unwrap()).collect();
    let mut parts: Vec<_> = block.split().collect();
    rig.parent.free(&attachment, parts.remove(1));
    rig.parent.free(&attachment, parts.remove(2));
    let works: Vec<_> =
        messages.iter().map(|message| rig.translate(NIC, *message).is_ok()).collect();
    assert_eq!(works, [true, false, true, false, true]);
    assert_eq!(rig.parent.entries_in_use(), 3);
    let again =
        rig.parent.allocate(&attachment, &request(1, Shape::Independent, Rewrite::Never, CPU0));
    parts.push(again.unwrap());
    rig.parent.release(attachment, &mut parts.into_iter());
    assert_eq!(rig.parent.entries_in_use(), 0);
}

#[test]
fn a_handle_of_another_requester_faults() {
    let (rig, device) = Rig::with_device();
    let thief = RequesterId::pci(1, 0, 1);
    let fault = RemapFault::WrongSource { requester: thief, index: 0 };
    assert_eq!(rig.translate(thief, device.message), Err(fault));
}

#[test]
fn compatibility_messages_are_blocked() {
    let (rig, device) = Rig::with_device();
    let place = rig.board.domain.cpu_vector(device.vector()).unwrap();
    let forged = ApicMessage::fixed(id_of(place.cpu), place.vector);
    let forged = forged.encode(DestinationFormat::Xapic).unwrap();
    assert_eq!(rig.translate(NIC, forged), Err(RemapFault::CompatibilityBlocked));
}

#[test]
fn vectors_of_a_group_move_alone() {
    let rig = Rig::new();
    let attachment = rig.parent.attach(NIC, 8).unwrap();
    let group = request(8, Shape::AlignedGroup, Rewrite::Never, CPU0);
    let block = rig.parent.allocate(&attachment, &group).unwrap();
    let base = rig.parent.compose(&block, 0).unwrap();
    assert!(base.data.is_multiple_of(8));
    let moved = rig.parent.begin_move(&block, 3, CPU1).unwrap();
    assert_eq!(moved.count.get(), 1);
    rig.parent.end_move(moved, MoveOutcome::Written).unwrap();
    for index in 0..8 {
        // The function replaces the low bits.
        let sent = MsiMessage { data: base.data | u32::from(index), ..base };
        let place = rig.translate(NIC, sent).unwrap();
        assert_eq!(rig.board.domain.cpu_vector(block.hwirq(index).unwrap()), Some(place));
        assert_eq!(place.cpu, if index == 3 { CPU1 } else { CPU0 });
    }
    let beyond = MsiMessage { data: base.data + 8, ..base };
    assert_eq!(rig.translate(NIC, beyond), Err(RemapFault::NotPresent { index: 8 }));
    rig.parent.free(&attachment, block);
    assert_eq!(rig.translate(NIC, base), Err(RemapFault::NotPresent { index: 0 }));
}

#[test]
fn a_full_remapping_table_allocates_no_vectors() {
    let small = config_of(2, ApicMode::X2apic);
    let rig = Rig::with(small, Source::pci);
    let attachment = rig.parent.attach(NIC, 5).unwrap();
    let wanted = |count| request(count, Shape::Independent, Rewrite::Masked, CPU0);
    let first = rig.parent.allocate(&attachment, &wanted(3)).unwrap();
    let refused = rig.parent.allocate(&attachment, &wanted(2));
    assert_eq!(refused, Err(MsiError::NoVectors { wanted: 2 }));
    rig.board.clean_up(CPU0);
    assert_eq!(rig.board.domain.available_on(CPU0), 9);
    rig.parent.free(&attachment, first);
    assert!(rig.parent.allocate(&attachment, &wanted(4)).is_ok());
}

#[test]
fn an_entry_whose_invalidation_failed_is_not_reused() {
    let (rig, device) = Rig::with_device();
    let (message, place) = (device.message, rig.translate(NIC, device.message).unwrap());
    *rig.unit.broken.lock().unwrap() = true;
    device.free(&*rig.parent);
    *rig.unit.broken.lock().unwrap() = false;
    rig.device().free(&*rig.parent);
    rig.board.clean_up(CPU0);
    // The unit still has the entry in its cache.
    assert_eq!(rig.translate(NIC, message), Ok(place));
    assert_eq!(rig.board.domain.arrive(place.cpu, place.vector), Arrival::Released);
    let other = rig.device();
    assert_ne!(other.message, message);
    assert_ne!(rig.board.domain.cpu_vector(other.vector()), Some(place));
}

#[test]
fn an_allocation_fails_if_its_entry_cannot_be_invalidated() {
    let rig = Rig::new();
    *rig.unit.broken.lock().unwrap() = true;
    let error = Device::new(&*rig.parent, NIC.get(), Rewrite::Never, CPU0).unwrap_err();
    assert!(matches!(error, MsiError::Controller(_)));
    *rig.unit.broken.lock().unwrap() = false;
    rig.device();
}

#[test]
fn an_unreachable_apic_is_refused_without_leaking_vectors() {
    let rig = Rig::with(config_of(5, ApicMode::Xapic), Source::pci);
    rig.board.offline(CPU1);
    for id in [0xff, 0x101] {
        rig.board.domain.online(CPU1, ApicId::new(id)).unwrap();
        let refused = Device::new(&*rig.parent, NIC.get(), Rewrite::Never, CPU1).unwrap_err();
        assert!(matches!(refused, MsiError::NotReachable(CPU1, _)));
        assert_eq!(rig.board.domain.hwirqs_in_use(), 0);
        let device = rig.device();
        let refused = rig.relocate(&device, CPU1, MoveOutcome::Written);
        assert!(matches!(refused, Err(MsiError::NotReachable(CPU1, _))));
        assert_eq!(rig.board.domain.available_on(CPU1), 12);
        device.free(&*rig.parent);
        rig.board.clean_up(CPU0);
    }
}

#[test]
fn an_endpoint_too_narrow_is_refused() {
    let rig = Rig::new();
    let attachment = rig.parent.attach(NIC, 8).unwrap();
    let mut narrow = request(8, Shape::AlignedGroup, Rewrite::Masked, CPU0);
    narrow.fit.data_bits = 2;
    let refused = rig.parent.allocate(&attachment, &narrow);
    assert_eq!(refused, Err(MsiError::DataTooWide { data: 7, bits: 2 }));
    narrow.fit = msi_types::Fit::new(Rewrite::Masked).with_address_bits(31).with_data_bits(16);
    let refused = rig.parent.allocate(&attachment, &narrow);
    assert!(matches!(refused, Err(MsiError::AddressTooWide { bits: 31, .. })));
}

#[test]
fn a_requester_outside_the_unit_has_no_route() {
    let rig = Rig::with(config(), |_| None);
    assert_eq!(rig.parent.attach(NIC, 1).map(|_| ()), Err(MsiError::NoRoute(NIC)));
    assert_eq!(rig.parent.isolation(NIC), Isolation::NotIsolated(NotIsolated::NoController));
}

#[test]
fn only_a_unit_that_checks_every_message_reports_isolation() {
    let proof = Isolation::Isolated(IsolatingMechanism::InterruptRemapping);
    assert_eq!(Rig::new().parent.isolation(NIC), proof);
    let passing = config_of(5, ApicMode::Xapic).with_compatibility(CompatibilityFormat::Passed);
    let open = Rig::with(passing, Source::pci).parent.isolation(NIC);
    assert!(matches!(open, Isolation::NotIsolated(NotIsolated::SharedDoorbell(_))));
    let unchecked = Rig::with(config(), |_| Some(Source { id: 0, check: SourceCheck::None }));
    assert!(matches!(unchecked.parent.isolation(NIC), Isolation::NotIsolated(_)));
}

#[test]
fn remapping_offers_groups() {
    use msi_types::{Capabilities, Capability, Properties};
    let rig = Rig::new();
    let groups = Capabilities::NONE.with(Capability::Groups);
    assert_eq!(negotiate(groups, Properties::NONE, &|visit| rig.parent.tiers(visit)), Ok(()));
    assert!(negotiate(groups, Properties::NONE, &|visit| rig.board.domain.tiers(visit)).is_err());
    let mut names = Vec::new();
    rig.parent.tiers(&mut |tier| names.push(tier.name));
    assert_eq!(names.last(), Some(&"x86-vector"));
}

#[test]
fn a_masked_remapped_vector_is_held_and_resent() {
    let (rig, device) = Rig::with_device();
    let place = rig.translate(NIC, device.message).unwrap();
    rig.parent.mask(device.vector());
    assert_eq!(rig.board.domain.arrive(place.cpu, place.vector), Arrival::Held);
    rig.parent.unmask(device.vector());
    assert_eq!(rig.board.resent(), 1);
    rig.parent.set_pending(device.vector(), Pending::Set);
    assert_eq!(rig.board.resent(), 2);
}

#[test]
fn a_description_names_entry_and_source() {
    let (rig, device) = Rig::with_device();
    let mut text = String::new();
    rig.parent.describe(device.vector(), &mut text).unwrap();
    assert_eq!(
        text,
        "remapping@fed90000: entry 0, source 0x0100\nx86: vector 0x20 at CPU 0 (APIC 1)\n"
    );
}

#[derive(Clone, Debug)]
enum Op {
    Allocate(u16, bool, u32),
    Free(prop::sample::Index),
    Move(prop::sample::Index, prop::sample::Index, u32),
    CleanUp,
}

fn ops() -> impl Strategy<Value = Op> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => (0..4_u16, any::<bool>(), 0..2_u32)
            .prop_map(|(n, group, cpu)| Op::Allocate(n, group, cpu)),
        2 => index().prop_map(Op::Free),
        3 => (index(), index(), 0..2_u32).prop_map(|(b, v, cpu)| Op::Move(b, v, cpu)),
        1 => Just(Op::CleanUp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// Every message of every device reaches its own vector, and all resources are free after all
    /// devices were freed.
    #[test]
    fn remapping_entries_and_vectors_agree_after_any_history(
        ops in prop::collection::vec(ops(), 0..60),
    ) {
        let rig = Rig::new();
        let mut held = Vec::new();
        let mut serial = 0_u32;
        for op in ops {
            match op {
                Op::Allocate(log2, group, cpu) => {
                    serial += 1;
                    let requester = RequesterId::new(serial);
                    let attachment = rig.parent.attach(requester, 8).unwrap();
                    let shape = if group { Shape::AlignedGroup } else { Shape::Independent };
                    let wanted = request(1 << log2, shape, Rewrite::Never, Cpu::new(cpu));
                    match rig.parent.allocate(&attachment, &wanted) {
                        Ok(block) => held.push((requester, attachment, block, shape)),
                        Err(MsiError::NoVectors { .. } | MsiError::NotReachable(..)) => {
                            rig.parent.detach(attachment);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                Op::Free(index) if !held.is_empty() => {
                    let (_, attachment, block, _) = held.swap_remove(index.index(held.len()));
                    rig.parent.free(&attachment, block);
                    rig.parent.detach(attachment);
                }
                Op::Move(index, vector, cpu) if !held.is_empty() => {
                    let (_, _, block, _) = &held[index.index(held.len())];
                    let index = u16::try_from(vector.index(block.count().get().into())).unwrap();
                    if let Ok(moved) = rig.parent.begin_move(block, index, Cpu::new(cpu)) {
                        rig.parent.end_move(moved, MoveOutcome::Written).unwrap();
                    }
                }
                Op::CleanUp => rig.board.cpus().for_each(|cpu| rig.board.clean_up(cpu)),
                Op::Free(_) | Op::Move(..) => {}
            }
            for (requester, _, block, shape) in &held {
                for index in 0..block.count().get() {
                    let sent = match shape {
                        Shape::Independent => rig.parent.compose(block, index).unwrap(),
                        Shape::AlignedGroup => {
                            let base = rig.parent.compose(block, 0).unwrap();
                            MsiMessage { data: base.data | u32::from(index), ..base }
                        }
                    };
                    let place = rig.translate(*requester, sent).unwrap();
                    let vector = block.hwirq(index).unwrap();
                    prop_assert_eq!(rig.board.domain.cpu_vector(vector), Some(place));
                    prop_assert!(rig.translate(RequesterId::new(0), sent).is_err());
                }
            }
        }
        for (_, attachment, block, _) in held {
            rig.parent.free(&attachment, block);
            rig.parent.detach(attachment);
        }
        rig.board.cpus().for_each(|cpu| rig.board.clean_up(cpu));
        prop_assert_eq!((rig.parent.entries_in_use(), rig.board.domain.hwirqs_in_use()), (0, 0));
        rig.board.cpus().for_each(|cpu| assert_eq!(rig.board.domain.available_on(cpu), 12));
    }
}
