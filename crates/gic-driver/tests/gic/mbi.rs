//! Tests for message-based SPIs.

use crate::fake::{Board, DISTRIBUTOR, FakeRegisters, REDISTRIBUTOR, interrupt_at};
use doorbell_test_support::{after_failures, outside, with_allocations};
use gic_arch::gicr::STRIDE_V3;
use gic_arch::{Affinity, IntId};
use gic_driver::{
    Gic, GicConfig, Mbi, MbiConfig, PhysicalRegion, RedistributorRegion, Route, SpiError, SpiRange,
};
use msi_types::explain::{self, Fact, Obstacle, TargetState};
use msi_types::{
    Attachment, BlockRequest, Cpu, DoorbellPage, Fit, Granule, HwIrq, HwIrqBlock, Initially,
    Isolation, MoveOutcome, MsiError, MsiMessage, MsiParent, NotIsolated, Pending, RequesterId,
    Rewrite, Shape, WiredParent,
};
use proptest::prelude::*;
use std::num::NonZeroU16;
use std::sync::Arc;

const CPUS: u8 = 3;
const ANY: Fit = Fit::new(Rewrite::Never).with_address_bits(32).with_data_bits(16);

fn gic_on(fake: &Board) -> Arc<Gic<Board>> {
    let region = PhysicalRegion { base: REDISTRIBUTOR, bytes: u64::from(CPUS) * STRIDE_V3 };
    let affinities = (0..CPUS).map(|cpu| Affinity::new(0, 0, 0, cpu)).collect();
    let config = GicConfig::new(DISTRIBUTOR, vec![RedistributorRegion::new(region)], affinities);
    let gic = Gic::new(Arc::new(fake.clone()), config).unwrap();
    // The last CPU stays off.
    for cpu in [0, 1] {
        gic.cpu_on(Cpu::new(cpu), &FakeRegisters::default()).unwrap();
    }
    Arc::new(gic)
}

fn range(first: u32, count: u16) -> SpiRange {
    SpiRange { first: HwIrq::new(first), count: NonZeroU16::new(count).unwrap() }
}

fn config(ranges: &[(u32, u16)]) -> MbiConfig {
    MbiConfig::new(ranges.iter().map(|(first, count)| range(*first, *count)).collect())
}

fn set_up(ranges: &[(u32, u16)]) -> (Board, Arc<Gic<Board>>, Mbi<Board>) {
    let fake = Board::with_cpus(CPUS);
    let gic = gic_on(&fake);
    let mbi = Mbi::new(&gic, config(ranges)).unwrap();
    (fake, gic, mbi)
}

fn request(count: u16, shape: Shape) -> BlockRequest {
    let count = NonZeroU16::new(count).unwrap();
    BlockRequest::new(count, ANY, Cpu::new(1)).with_shape(shape)
}

fn attach(mbi: &Mbi<Board>) -> Attachment {
    mbi.attach(RequesterId::new(1), 1).unwrap()
}

fn allocate(mbi: &Mbi<Board>, count: u16, shape: Shape) -> Result<HwIrqBlock, MsiError> {
    mbi.allocate(&attach(mbi), &request(count, shape))
}

fn state(fake: &Board, intid: u32) -> crate::fake::InterruptState {
    fake.at_distributor(|frame| *frame.spis.state(IntId::new(intid)))
}

#[test]
fn an_mbi_message_writes_the_intid_to_setspi() {
    let (_, _, mbi) = set_up(&[(64, 8)]);
    let block = allocate(&mbi, 2, Shape::Independent).unwrap();
    let expected = |data| MsiMessage { address: DISTRIBUTOR + 0x40, data };
    assert_eq!(
        [0, 1].map(|index| mbi.compose(&block, index)),
        [64, 65].map(|data| Ok(expected(data)))
    );
    assert!(mbi.compose(&block, 2).is_err());
}

#[test]
fn alias_has_the_same_register_offsets() {
    let gic = gic_on(&Board::with_cpus(CPUS));
    let mbi = Mbi::new(&gic, config(&[(64, 8)]).with_alias(Some(0x1_0000_0000))).unwrap();
    let request = request(1, Shape::Independent)
        .with_initially(Initially::Masked)
        .with_fit(ANY.with_address_bits(64));
    let block = mbi.allocate(&attach(&mbi), &request).unwrap();
    let messages = mbi.compose_level(&block, 0).unwrap();
    assert_eq!(messages.assert, MsiMessage { address: 0x1_0000_0040, data: 64 });
    assert_eq!(messages.deassert, MsiMessage { address: 0x1_0000_0048, data: 64 });
    assert_eq!(
        allocate(&mbi, 1, Shape::Independent).unwrap_err(),
        MsiError::AddressTooWide { address: 0x1_0000_0040, bits: 32 }
    );
    // The refused allocation must not leave SPIs allocated.
    assert_eq!(mbi.allocate(&attach(&mbi), &request).unwrap().first(), HwIrq::new(65));
}

#[test]
fn missing_message_registers_are_refused() {
    let fake = Board::with_cpus(CPUS);
    fake.at_distributor(|frame| frame.typer = frame.typer.with_mbis(false));
    let refused = Mbi::new(&gic_on(&fake), config(&[(64, 8)])).unwrap_err();
    assert_eq!(refused, SpiError::NotSupported { distributor: DISTRIBUTOR });
    assert!(refused.to_string().contains("GICD_TYPER.MBIS"));
}

#[test]
fn invalid_mbi_ranges_are_refused() {
    let gic = gic_on(&Board::with_cpus(CPUS));
    let refused = |ranges: &[(u32, u16)]| Mbi::new(&gic, config(ranges)).unwrap_err();
    assert_eq!(refused(&[]), SpiError::Nothing("SPIs for messages (mbi-ranges)"));
    for (first, count) in [(16, 8), (30, 4), (1000, 40), (5110, 20), (8192, 4), (u32::MAX, 2)] {
        assert_eq!(
            refused(&[(first, count)]),
            SpiError::NotSpis { property: "mbi-ranges", first: HwIrq::new(first), count }
        );
    }
    assert_eq!(refused(&[(64, 8), (80, 8), (71, 2)]), SpiError::Overlap(HwIrq::new(71)));
    // SPIs below 96 are implemented.
    assert_eq!(
        refused(&[(64, 8), (90, 8)]),
        SpiError::Claim(
            "that firmware states (mbi-ranges)",
            MsiError::UnknownVector(HwIrq::new(96))
        )
    );
    // A refused configuration must not leave SPIs claimed.
    assert!(Mbi::new(&gic, config(&[(64, 32)])).is_ok());
}

#[test]
fn a_dropped_mbi_frame_keeps_ranges_with_vectors() {
    let (_, gic, mbi) = set_up(&[(64, 8), (80, 8)]);
    let claim = |spi| gic.claim(HwIrq::new(spi), NonZeroU16::MIN);
    assert!(claim(71).is_err() && claim(87).is_err());
    assert!(Mbi::new(&gic, config(&[(71, 2)])).is_err());
    let sent = allocate(&mbi, 1, Shape::AlignedGroup).unwrap();
    assert_eq!(sent.first(), HwIrq::new(64));
    drop(mbi);
    assert!(claim(64).is_err() && claim(71).is_err());
    assert_eq!(claim(87), Ok(()));
}

#[test]
fn an_aligned_group_lies_within_one_spi_range() {
    let (_, _, mbi) = set_up(&[(66, 7), (73, 15)]);
    let first = |count| allocate(&mbi, count, Shape::AlignedGroup).map(|block| block.first().get());
    assert_eq!(first(4), Ok(68));
    assert_eq!(first(8), Ok(80));
    assert_eq!(first(4), Ok(76));
    assert_eq!(first(4), Err(MsiError::NoVectors { wanted: 4 }));
    assert_eq!(first(2), Ok(66));
}

#[test]
fn compose_level_makes_an_spi_level_triggered_until_it_is_freed() {
    let (fake, _, mbi) = set_up(&[(64, 1)]);
    let masked = request(1, Shape::Independent).with_initially(Initially::Masked);
    let block = mbi.allocate(&attach(&mbi), &masked).unwrap();
    let messages = mbi.compose_level(&block, 0).unwrap();
    assert_eq!(messages.assert.address + 8, messages.deassert.address);
    assert!(!state(&fake, 64).edge);
    mbi.unmask(block.first());
    assert!(mbi.compose_level(&block, 0).is_ok(), "the vector is already level-triggered");
    assert!(mbi.explain(block.first(), RequesterId::new(1)).is_idle(), "a level is no obstacle");
    fake.at_distributor(|frame| frame.spis.state(IntId::new(64)).held = true);
    mbi.free(&attach(&mbi), block);
    let left = state(&fake, 64);
    assert_eq!((left.edge, left.pending, left.held, left.forwarded), (true, false, false, false));
}

#[test]
fn an_unmasked_edge_spi_cannot_become_level_triggered() {
    let (fake, _, mbi) = set_up(&[(64, 1)]);
    let block = allocate(&mbi, 1, Shape::Independent).unwrap();
    assert!(matches!(mbi.compose_level(&block, 0), Err(MsiError::Controller(_))));
    assert!(state(&fake, 64).edge);
}

#[test]
fn moving_changes_the_route_and_not_the_message() {
    let (_, gic, mbi) = set_up(&[(64, 8)]);
    let block = allocate(&mbi, 4, Shape::AlignedGroup).unwrap();
    let route = |intid| gic.distributor().route(IntId::new(intid)).unwrap();
    let to = |cpu| Route::To(Affinity::new(0, 0, 0, cpu));
    let moved = mbi.begin_move(&block, 2, Cpu::new(0)).unwrap();
    assert_eq!((moved.first, moved.count.get(), moved.message), (HwIrq::new(66), 1, None));
    assert_eq!((moved.from, moved.to), (Cpu::new(1), Cpu::new(0)));
    mbi.end_move(moved, MoveOutcome::Written).unwrap();
    assert_eq!([64, 65, 66, 67].map(route), [to(1), to(1), to(0), to(1)]);
    let back = mbi.begin_move(&block, 2, Cpu::new(1)).unwrap();
    assert_eq!(back.from, Cpu::new(0));
    mbi.end_move(back, MoveOutcome::RolledBack).unwrap();
    assert_eq!(route(66), to(0));
    assert!(
        matches!(mbi.begin_move(&block, 2, Cpu::new(2)), Err(MsiError::NotReachable(..))),
        "CPU 2 is off"
    );
    assert_eq!(route(66), to(0));
}

fn moved_to(mbi: &Mbi<Board>, block: &HwIrqBlock, cpu: u32) -> Result<(), MsiError> {
    let moved = mbi.begin_move(block, 0, Cpu::new(cpu))?;
    mbi.end_move(moved, MoveOutcome::Written)
}

/// Returns the CPU to which a message would be delivered.
fn delivery(fake: &Board, intid: u32) -> Option<u64> {
    fake.at_distributor(|frame| frame.delivers_to(IntId::new(intid)))
}

#[test]
fn no_message_reaches_the_old_cpu_after_a_move() {
    let (fake, _, mbi) = set_up(&[(64, 8), (4096, 8)]);
    for _ in 0..2 {
        let block = allocate(&mbi, 8, Shape::Independent).unwrap();
        let intid = block.first().get();
        let delivery = || delivery(&fake, intid);
        assert_eq!(delivery(), Some(1));
        moved_to(&mbi, &block, 0).unwrap();
        assert_eq!(delivery(), Some(0));
        let back = mbi.begin_move(&block, 0, Cpu::new(1)).unwrap();
        mbi.end_move(back, MoveOutcome::RolledBack).unwrap();
        assert_eq!(delivery(), Some(0));
    }
}

#[test]
fn a_masked_vector_that_moves_stays_masked() {
    let (fake, _, mbi) = set_up(&[(64, 8)]);
    let block = allocate(&mbi, 1, Shape::Independent).unwrap();
    mbi.mask(block.first());
    moved_to(&mbi, &block, 0).unwrap();
    assert_eq!(delivery(&fake, 64), None);
    mbi.unmask(block.first());
    assert_eq!(delivery(&fake, 64), Some(0));
}

#[test]
fn mask_changes_during_a_move_persist() {
    let (fake, gic, mbi) = set_up(&[(64, 8)]);
    let block = allocate(&mbi, 1, Shape::Independent).unwrap();
    let (hwirq, wired) = (block.first(), gic.clone());
    interrupt_at(0, move || wired.mask(hwirq));
    moved_to(&mbi, &block, 0).unwrap();
    assert_eq!(delivery(&fake, 64), None);

    let (machine, wired) = (fake.clone(), gic.clone());
    mbi.unmask(hwirq);
    interrupt_at(0, move || {
        wired.mask(hwirq);
        wired.unmask(hwirq);
        assert!(!state(&machine, 64).enabled, "the SPI is enabled before its route has changed");
    });
    moved_to(&mbi, &block, 1).unwrap();
    assert_eq!(delivery(&fake, 64), Some(1));
}

#[test]
fn a_route_that_does_not_read_back_is_undone() {
    let (fake, _, mbi) = set_up(&[(64, 8)]);
    let block = allocate(&mbi, 1, Shape::Independent).unwrap();
    moved_to(&mbi, &block, 0).unwrap();
    fake.at_distributor(|frame| frame.route_bits = !1);
    assert!(matches!(moved_to(&mbi, &block, 1), Err(MsiError::NotReachable(..))));
    assert_eq!(delivery(&fake, 64), Some(0));
}

#[test]
fn a_refused_request_for_an_offline_cpu_keeps_no_spi() {
    let (_, _, mbi) = set_up(&[(64, 1)]);
    let off = request(1, Shape::Independent).with_cpu(Cpu::new(2));
    assert!(matches!(mbi.allocate(&attach(&mbi), &off), Err(MsiError::NotReachable(..))));
    assert!(allocate(&mbi, 1, Shape::Independent).is_ok());
}

#[test]
fn the_pending_state_of_an_mbi_can_be_set_cleared_and_read() {
    let (_, _, mbi) = set_up(&[(64, 8)]);
    let hwirq = allocate(&mbi, 1, Shape::Independent).unwrap().first();
    assert_eq!(mbi.is_pending(hwirq), Some(false));
    mbi.set_pending(hwirq, Pending::Set);
    assert_eq!(mbi.is_pending(hwirq), Some(true));
    mbi.set_pending(hwirq, Pending::Clear);
    assert_eq!(mbi.is_pending(hwirq), Some(false));
}

#[test]
fn unallocated_vectors_are_not_accessed() {
    let (fake, _, mbi) = set_up(&[(64, 8)]);
    for hwirq in [64, 40, 8192].map(HwIrq::new) {
        mbi.unmask(hwirq);
        mbi.set_pending(hwirq, Pending::Set);
        assert_eq!(mbi.is_pending(hwirq), None);
    }
    for intid in [40, 64] {
        assert!(!state(&fake, intid).forwarded && !state(&fake, intid).pending);
    }
}

#[test]
fn an_iommu_may_map_the_doorbell_page_only_if_it_is_an_alias() {
    let gic = gic_on(&Board::with_cpus(CPUS));
    let page = |alias| {
        let mbi = Mbi::new(&gic, config(&[(64, 8)]).with_alias(alias)).unwrap();
        mbi.doorbell_page(Granule::Size64K)
    };
    assert!(matches!(page(None), DoorbellPage::HoldsControls(_)));
    assert_eq!(page(Some(0x900_0000)), DoorbellPage::Alone);
}

#[test]
fn mbi_frames_isolate_no_device() {
    let gic = gic_on(&Board::with_cpus(CPUS));
    let reason = |alias| {
        let mbi = Mbi::new(&gic, config(&[(64, 8)]).with_alias(alias)).unwrap();
        mbi.isolation(RequesterId::new(1))
    };
    let own = reason(None);
    assert!(own.mechanism().is_err());
    assert!(
        matches!(own, Isolation::NotIsolated(NotIsolated::DoorbellPageHoldsControls(_))),
        "{own}"
    );
    let alias = reason(Some(0x900_0000));
    assert!(matches!(alias, Isolation::NotIsolated(NotIsolated::SharedDoorbell(_))), "{alias}");
}

proptest! {
    #[test]
    fn allocated_blocks_are_aligned_disjoint_and_within_one_range(
        requests in prop::collection::vec((0u32..5, any::<bool>(), any::<bool>()), 1..30)
    ) {
        let ranges = [(35, 13), (60, 30), (4099, 20)];
        let (_, _, mbi) = set_up(&ranges);
        let mut live: Vec<HwIrqBlock> = Vec::new();
        for (log2, group, free) in requests {
            if free && let Some(block) = live.pop() {
                mbi.free(&attach(&mbi), block);
            }
            let shape = if group { Shape::AlignedGroup } else { Shape::Independent };
            if let Ok(block) = allocate(&mbi, 1 << log2, shape) {
                let (first, end) = (block.first().get(), block.first().get() + (1 << log2));
                prop_assert!(
                    ranges
                        .iter()
                        .any(|(start, count)| *start <= first && end <= start + u32::from(*count))
                );
                prop_assert!(!group || first.is_multiple_of(1 << log2));
                for other in &live {
                    let (other, other_end) =
                        (other.first().get(), other.first().get() + u32::from(other.count().get()));
                    prop_assert!(end <= other || other_end <= first);
                }
                live.push(block);
            }
        }
    }
}

#[test]
fn ranges_without_heap_are_refused_and_released() {
    let fake = Board::with_cpus(CPUS);
    let gic = gic_on(&fake);
    let ranges = [(40, 4), (64, 8)];
    let make = || Mbi::new(&gic, outside(|| config(&ranges)));
    let mbi = after_failures(6, make, |error| {
        assert!(matches!(error, SpiError::Claim(_, MsiError::NoMemory(_))), "{error}");
        for (first, count) in ranges {
            let (first, count) = (HwIrq::new(first), NonZeroU16::new(count).unwrap());
            gic.claim(first, count).unwrap();
            gic.release(first, count);
        }
    });
    assert_eq!(mbi.ranges(), [range(40, 4), range(64, 8)]);
    let block = with_allocations(0, || allocate(&mbi, 4, Shape::AlignedGroup)).unwrap();
    with_allocations(0, || {
        let device = attach(&mbi);
        mbi.mask(block.first());
        mbi.free(&device, block);
    });
}

#[test]
fn explain_reports_the_state_of_a_message_based_spi() {
    let (fake, gic, mbi) = set_up(&[(64, 8)]);
    let block = allocate(&mbi, 1, Shape::Independent).unwrap();
    let interrupt = block.first();
    let explain = |hwirq| mbi.explain(hwirq, RequesterId::new(1));
    assert!(explain(interrupt).is_idle());
    mbi.set_pending(interrupt, Pending::Set);
    let facts = [
        Fact::Doorbell(DISTRIBUTOR + 0x40),
        Fact::MessageIntid(interrupt),
        Fact::Enabled(0xa0),
        Fact::Pending(interrupt),
        Fact::Target(Cpu::new(1), TargetState::Awake),
    ];
    assert!(explain(interrupt).facts().eq(facts));
    assert_eq!(explain(interrupt).obstacle(), None);
    let intid = IntId::new(interrupt.get());
    fake.at_distributor(|frame| frame.spis.state(intid).edge = false);
    // The interrupt core compares it with what was requested.
    assert!(explain(interrupt).facts().any(|fact| fact == Fact::LevelSensitive));
    fake.at_distributor(|frame| frame.spis.state(intid).edge = true);
    fake.at_distributor(|frame| frame.spis.state(intid).active = true);
    let active = Obstacle::Active { interrupt, cpu: None };
    assert_eq!(explain(interrupt).obstacle(), Some(active));
    fake.at_distributor(|frame| frame.spis.state(intid).group = false);
    let group = explain::Group::Zero;
    assert_eq!(explain(interrupt).obstacle(), Some(Obstacle::WrongGroup { interrupt, group }));
    drop(gic);
    let interrupt = HwIrq::new(65);
    assert_eq!(explain(interrupt).obstacle(), Some(Obstacle::NoSuchInterrupt { interrupt }));
}
