//! Tests for GICv2m frames with a GICv3.

use crate::fake::{Board, DISTRIBUTOR, FakeDistributor, FakeRegisters, REDISTRIBUTOR};
use doorbell_test_support::after_failures;
use gic_arch::gicr::STRIDE_V3;
use gic_arch::{Affinity, v2m};
use gic_driver::{Gic, GicConfig, PhysicalRegion, RedistributorRegion, SpiError, V2m, V2mFrame};
use msi_types::{
    BlockRequest, Capability, Cpu, DoorbellPage, Fit, Granule, HwIrq, HwIrqBlock, Isolation,
    MsiError, MsiMessage, MsiParent, NotIsolated, Pending, RequesterId, Rewrite, Shape,
    WiredParent,
};
use std::num::NonZeroU16;
use std::sync::Arc;

const FRAME: u64 = 0x802_0000;
const OTHER: u64 = 0x803_0000;

fn typer(first: u16, count: u16) -> u32 {
    v2m::Typer::new().with_first(first).with_count(count).into()
}

/// Returns the GICv3 of a board with one CPU, whose distributor implements the maximum number of
/// SPIs.
pub(crate) fn wired_machine(board: &Board) -> Arc<Gic<Board>> {
    board.at_distributor(FakeDistributor::implement_all_spis);
    let region = PhysicalRegion { base: REDISTRIBUTOR, bytes: STRIDE_V3 };
    let regions = vec![RedistributorRegion::new(region)];
    let config = GicConfig::new(DISTRIBUTOR, regions, vec![Affinity::new(0, 0, 0, 0)]);
    let gic = Arc::new(Gic::new(Arc::new(board.clone()), config).unwrap());
    gic.cpu_on(Cpu::new(0), &FakeRegisters::default()).unwrap();
    gic
}

/// Returns a machine with a GICv3 and these frames.
fn machine(frames: &[(u64, u32, u32)]) -> (Board, Arc<Gic<Board>>) {
    let fake = Board::with_cpus(1);
    let frames = frames.iter().map(|(base, typer, iidr)| (*base, [*typer, *iidr]));
    fake.world().v2m.extend(frames);
    let gic = wired_machine(&fake);
    (fake, gic)
}

fn open(gic: &Arc<Gic<Board>>, frames: &[V2mFrame<'_>]) -> Result<V2m<Board>, SpiError> {
    V2m::new(gic.platform().clone(), gic.clone(), frames)
}

fn allocate(v2m: &V2m<Board>, count: u16, shape: Shape) -> Result<HwIrqBlock, MsiError> {
    let device = v2m.attach(RequesterId::new(1), 1).unwrap();
    let fit = Fit::new(Rewrite::Never).with_address_bits(32).with_data_bits(16);
    let count = NonZeroU16::new(count).unwrap();
    let request = BlockRequest::new(count, fit, Cpu::new(0)).with_shape(shape);
    v2m.allocate(&device, &request)
}

fn first_message(v2m: &V2m<Board>, count: u16) -> MsiMessage {
    let shape = if count == 1 { Shape::Independent } else { Shape::AlignedGroup };
    v2m.compose(&allocate(v2m, count, shape).unwrap(), 0).unwrap()
}

fn ranges(v2m: &V2m<Board>) -> Vec<(u32, u16)> {
    v2m.ranges().iter().map(|range| (range.first.get(), range.count.get())).collect()
}

#[test]
fn a_v2m_message_writes_the_intid_to_the_doorbell() {
    let (_, gic) = machine(&[(FRAME, typer(80, 64), 0x53)]);
    let v2m = open(&gic, &[V2mFrame::new(FRAME)]).unwrap();
    assert_eq!(ranges(&v2m), [(80, 64)]);
    assert_eq!(first_message(&v2m, 1), MsiMessage { address: FRAME + 0x40, data: 80 });
    assert_eq!(first_message(&v2m, 32), MsiMessage { address: FRAME + 0x40, data: 96 });
}

#[test]
fn firmware_overrides_v2m_spis_only_with_base_and_count() {
    for (first, count, expected) in [
        (Some(100), Some(8), (100, 8)),
        (Some(100), None, (80, 64)),
        (None, Some(8), (80, 64)),
        (Some(0), Some(8), (80, 64)),
        (Some(100), Some(0), (80, 64)),
    ] {
        let (_, gic) = machine(&[(FRAME, typer(80, 64), 0)]);
        let frame = V2mFrame::new(FRAME).with_first_spi(first).with_spi_count(count);
        assert_eq!(ranges(&open(&gic, &[frame]).unwrap()), [expected]);
    }
}

#[test]
fn ranges_beyond_common_limits_are_refused() {
    for (first, count, accepted) in [
        (32, 1, true),
        (31, 8, false),
        (80, 0, false),
        (1018, 1, true),
        (1018, 2, false),
        (1000, 20, false),
        (1023, 1023, false),
    ] {
        let (_, gic) = machine(&[(FRAME, typer(first, count), 0)]);
        let answer = open(&gic, &[V2mFrame::new(FRAME)]).map(|v2m| ranges(&v2m));
        let bad = SpiError::BadRange { address: FRAME, first: first.into(), count: count.into() };
        let expected = if accepted { Ok(vec![(u32::from(first), count)]) } else { Err(bad) };
        assert_eq!(answer, expected);
    }
    let (_, gic) = machine(&[(FRAME, 0, 0)]);
    let frame = V2mFrame::new(FRAME).with_first_spi(Some(u32::MAX)).with_spi_count(Some(u32::MAX));
    assert!(matches!(open(&gic, &[frame]), Err(SpiError::BadRange { .. })));
}

#[test]
fn iidr_selects_the_data_encoding() {
    for (iidr, data) in
        [(0x0600_0170, 0), (0x0000_013f, 64 - 32), (0x0600_0171, 64), (0x0000_043b, 64)]
    {
        let (_, gic) = machine(&[(FRAME, typer(64, 64), iidr)]);
        let v2m = open(&gic, &[V2mFrame::new(FRAME)]).unwrap();
        assert_eq!(first_message(&v2m, 8), MsiMessage { address: FRAME + 0x40, data }, "{iidr:#x}");
    }
}

#[test]
fn a_v2m_data_offset_that_breaks_alignment_refuses_groups() {
    let (_, gic) = machine(&[(FRAME, typer(70, 64), 0x0600_0170)]);
    let v2m = open(&gic, &[V2mFrame::new(FRAME)]).unwrap();
    assert_eq!(allocate(&v2m, 4, Shape::AlignedGroup), Err(MsiError::NoGroups));
    assert!(allocate(&v2m, 2, Shape::AlignedGroup).is_ok());
    assert!(allocate(&v2m, 4, Shape::Independent).is_ok());
}

#[test]
fn an_address_encoded_frame_is_not_read_and_refuses_groups() {
    // Make the platform refuse to map the frame, because a read of its registers would abort on
    // this machine.
    let (fake, gic) = machine(&[]);
    fake.world().unmapped.insert(FRAME);
    let frame = V2mFrame::new(FRAME)
        .with_first_spi(Some(40))
        .with_spi_count(Some(16))
        .with_oem_id(Some("AMAZON"));
    let v2m = open(&gic, &[frame]).unwrap();
    assert_eq!(first_message(&v2m, 1), MsiMessage { address: FRAME | 8 << 3, data: 0 });
    assert_eq!(first_message(&v2m, 1), MsiMessage { address: FRAME | 9 << 3, data: 0 });
    assert_eq!(allocate(&v2m, 2, Shape::AlignedGroup), Err(MsiError::NoGroups));
    let unknown = frame.with_spi_count(None);
    assert_eq!(open(&gic, &[unknown]).unwrap_err(), SpiError::SpisUnknown(FRAME));
    let other = frame.with_oem_id(Some("OTHERS"));
    assert_eq!(
        open(&gic, &[other]).unwrap_err(),
        SpiError::NotMapped { kind: "v2m frame", base: FRAME }
    );
}

#[test]
fn v2m_allocates_from_the_first_frame_with_room() {
    let (_, gic) = machine(&[(FRAME, typer(80, 2), 0), (OTHER, typer(96, 8), 0x13f)]);
    let v2m = open(&gic, &[V2mFrame::new(FRAME), V2mFrame::new(OTHER)]).unwrap();
    assert_eq!(first_message(&v2m, 4), MsiMessage { address: OTHER + 0x40, data: 96 - 32 });
    assert_eq!(first_message(&v2m, 1), MsiMessage { address: FRAME + 0x40, data: 80 });
    assert_eq!(first_message(&v2m, 1), MsiMessage { address: FRAME + 0x40, data: 81 });
    assert_eq!(first_message(&v2m, 1), MsiMessage { address: OTHER + 0x40, data: 100 - 32 });
}

#[test]
fn refused_overlapping_frames_release_their_spis() {
    let (_, gic) = machine(&[(FRAME, typer(80, 8), 0), (OTHER, typer(84, 8), 0)]);
    let frames = [V2mFrame::new(FRAME), V2mFrame::new(OTHER)];
    assert_eq!(
        open(&gic, &frames).unwrap_err(),
        SpiError::Claim("of a v2m frame", MsiError::InUse(HwIrq::new(84)))
    );
    assert_eq!(open(&gic, &[]).unwrap_err(), SpiError::Nothing("v2m frame"));
    assert!(open(&gic, &frames[..1]).is_ok());
}

#[test]
fn v2m_refuses_levels_and_isolates_nothing() {
    let (_, gic) = machine(&[(FRAME, typer(80, 8), 0)]);
    let v2m = open(&gic, &[V2mFrame::new(FRAME)]).unwrap();
    let block = allocate(&v2m, 1, Shape::Independent).unwrap();
    assert_eq!(v2m.compose_level(&block, 0), Err(MsiError::NoLevels));
    let answer = v2m.isolation(RequesterId::new(1));
    assert!(matches!(answer, Isolation::NotIsolated(NotIsolated::SharedDoorbell(_))), "{answer}");
}

#[test]
fn late_message_does_not_reach_the_next_owner() {
    let (_, gic) = machine(&[(FRAME, typer(80, 8), 0)]);
    let v2m = open(&gic, &[V2mFrame::new(FRAME)]).unwrap();
    let block = allocate(&v2m, 1, Shape::Independent).unwrap();
    let (device, hwirq) = (v2m.attach(RequesterId::new(1), 1).unwrap(), block.first());
    v2m.free(&device, block);
    // Signal a late message, as the doorbell would.
    WiredParent::set_pending(&*gic, hwirq, Pending::Set);
    assert!(WiredParent::is_pending(&*gic, hwirq));
    let next = allocate(&v2m, 1, Shape::Independent).unwrap();
    assert_eq!((next.first(), v2m.is_pending(hwirq)), (hwirq, Some(false)));
}

#[test]
fn v2m_reports_group_support_and_doorbell_page() {
    let (_, gic) = machine(&[(FRAME, typer(80, 8), 0), (OTHER, typer(91, 8), 0x0600_0170)]);
    let groups = |frame| {
        let v2m = open(&gic, &[V2mFrame::new(frame)]).unwrap();
        let mut groups = None;
        v2m.tiers(&mut |tier| groups = Some(tier.provides.contains(Capability::Groups)));
        groups
    };
    assert_eq!((groups(FRAME), groups(OTHER)), (Some(true), Some(false)));
    let v2m = open(&gic, &[V2mFrame::new(FRAME)]).unwrap();
    assert_eq!(v2m.doorbell_page(Granule::Size4K), DoorbellPage::Alone);
    assert_eq!(v2m.doorbell_page(Granule::Size64K), DoorbellPage::Unknown);
}

#[test]
fn describe_prints_the_v2m_frame_and_cpu() {
    let (_, gic) = machine(&[(FRAME, typer(80, 8), 0)]);
    let v2m = open(&gic, &[V2mFrame::new(FRAME)]).unwrap();
    let block = allocate(&v2m, 1, Shape::Independent).unwrap();
    let mut text = String::new();
    v2m.describe(block.first(), &mut text).unwrap();
    v2m.describe(HwIrq::new(81), &mut text).unwrap();
    assert_eq!(text, "v2m@8020000: SPI 80 at CPU 0\nv2m: SPI 81 is not allocated\n");
}

#[test]
fn frames_without_heap_are_refused_and_released() {
    let frames = [(FRAME, typer(80, 64), 0x53), (OTHER, typer(160, 32), 0x53)];
    let (_fake, gic) = machine(&frames);
    let wired: Arc<dyn WiredParent> = gic.clone();
    let platform = gic.platform().clone();
    let all = [V2mFrame::new(FRAME), V2mFrame::new(OTHER)];
    let v2m = after_failures(
        7,
        || V2m::new(platform.clone(), wired.clone(), &all),
        |error| {
            assert!(matches!(error, SpiError::Claim(_, MsiError::NoMemory(_))), "{error}");
            let one = NonZeroU16::MIN;
            gic.claim(HwIrq::new(80), one).unwrap();
            gic.release(HwIrq::new(80), one);
        },
    );
    assert_eq!(ranges(&v2m), [(80, 64), (160, 32)]);
}
