//! Tests for an ITS as a bus's MSI parent.

use super::setup::{Setup, config};
use crate::fake::Hardware;
use gic_driver::ItsMsiParent;
use gic_driver::its::{IdMap, IdRange};
use msi_types::{
    BlockRequest, Cpu, DeviceId, DoorbellPage, Fit, Granule, Isolation, MoveOutcome, MsiError,
    MsiParent, NotIsolated, Pending, RequesterId, Rewrite, Shape,
};
use std::num::NonZeroU16;

const MSI: Fit = Fit::new(Rewrite::Never).with_address_bits(32).with_data_bits(16);
const FUNCTION: RequesterId = RequesterId::pci(1, 2, 3);

fn bus(setup: &Setup) -> ItsMsiParent<crate::fake::Board> {
    let range = IdRange {
        first_requester: RequesterId::new(0),
        length: 0x200,
        first_device: DeviceId::new(0x1000),
    };
    ItsMsiParent::new(setup.its.clone(), IdMap::new(vec![range]))
}

fn block(count: u16, shape: Shape, fit: Fit) -> BlockRequest {
    let count = NonZeroU16::new(count).unwrap();
    BlockRequest::new(count, fit, Cpu::new(1)).with_shape(shape)
}

#[test]
fn a_composed_message_triggers_its_lpi() {
    let setup = Setup::new(Hardware::default());
    let parent = bus(&setup);
    let device = parent.attach(FUNCTION, 4).unwrap();
    let vectors = parent.allocate(&device, &block(4, Shape::AlignedGroup, MSI)).unwrap();
    let message = parent.compose(&vectors, 0).unwrap();
    assert_eq!(message.address, 0x808_0000 + 0x1_0040);
    let id = 0x1000 + FUNCTION.get();
    let arrived = setup.board.world().message(0, id, message.data | 3);
    assert_eq!(arrived, Some((1, vectors.hwirq(3).unwrap().get())));
}

#[test]
fn unmapped_requester_is_refused() {
    let setup = Setup::new(Hardware::default());
    let parent = bus(&setup);
    let stranger = RequesterId::pci(2, 0, 0);
    assert_eq!(parent.attach(stranger, 1).unwrap_err(), MsiError::NoRoute(stranger));
    assert_eq!(parent.isolation(stranger), Isolation::NotIsolated(NotIsolated::NoController));
    assert!(matches!(parent.isolation(FUNCTION), Isolation::Isolated(_)));
    // The page that an IOMMU would map contains only the doorbell, so the device stays isolated.
    for granule in [Granule::Size4K, Granule::Size16K, Granule::Size64K] {
        assert_eq!(parent.doorbell_page(granule), DoorbellPage::Alone);
    }
}

#[test]
fn a_doorbell_wider_than_the_endpoints_address_is_refused() {
    // The doorbell at 0x8090040 needs 28 bits.
    let setup = Setup::new(Hardware::default());
    let parent = bus(&setup);
    let device = parent.attach(FUNCTION, 4).unwrap();
    let free = setup.its.lpis().available();
    let narrow = MSI.with_address_bits(27);
    let error = parent.allocate(&device, &block(1, Shape::Independent, narrow)).unwrap_err();
    assert_eq!(error, MsiError::AddressTooWide { address: 0x809_0040, bits: 27 });
    assert_eq!(setup.its.lpis().available(), free);
}

#[test]
fn an_allocation_whose_event_ids_exceed_the_data_is_rolled_back() {
    let setup = Setup::new(Hardware::default());
    let parent = bus(&setup);
    let device = parent.attach(FUNCTION, 32).unwrap();
    let free = setup.its.lpis().available();
    let narrow = MSI.with_data_bits(4);
    let error = parent.allocate(&device, &block(17, Shape::Independent, narrow)).unwrap_err();
    assert_eq!(error, MsiError::DataTooWide { data: 16, bits: 4 });
    assert_eq!(setup.its.lpis().available(), free);
    let all = parent.allocate(&device, &block(32, Shape::Independent, MSI)).unwrap();
    parent.free(&device, all);
}

#[test]
fn a_vector_of_a_group_moves_without_the_others() {
    let setup = Setup::new(Hardware::default());
    let parent = bus(&setup);
    let device = parent.attach(FUNCTION, 4).unwrap();
    let vectors = parent.allocate(&device, &block(4, Shape::AlignedGroup, MSI)).unwrap();
    let moved = parent.begin_move(&vectors, 2, Cpu::new(3)).unwrap();
    let expected = (vectors.hwirq(2).unwrap(), 1, None, Cpu::new(1));
    assert_eq!((moved.first, moved.count.get(), moved.message, moved.from), expected);
    parent.end_move(moved, MoveOutcome::Written).unwrap();
    let cpus = [0, 1, 2, 3]
        .map(|event| setup.board.world().message(0, 0x1000 + FUNCTION.get(), event).unwrap().0);
    assert_eq!(cpus, [1, 1, 3, 1]);
}

#[test]
fn a_rolled_back_move_restores_the_events_cpu() {
    let setup = Setup::new(Hardware::default());
    let parent = bus(&setup);
    let device = parent.attach(FUNCTION, 1).unwrap();
    let vectors = parent.allocate(&device, &block(1, Shape::Independent, MSI)).unwrap();
    let moved = parent.begin_move(&vectors, 0, Cpu::new(3)).unwrap();
    parent.end_move(moved, MoveOutcome::RolledBack).unwrap();
    assert_eq!(setup.board.world().message(0, 0x1000 + FUNCTION.get(), 0).unwrap().0, 1);
}

#[test]
fn a_masked_its_vector_is_delivered_after_unmask() {
    let setup = Setup::new(Hardware::default());
    let parent = bus(&setup);
    let device = parent.attach(FUNCTION, 1).unwrap();
    let vectors = parent.allocate(&device, &block(1, Shape::Independent, MSI)).unwrap();
    parent.mask(vectors.first());
    parent.set_pending(vectors.first(), Pending::Set);
    assert_eq!(setup.take(1), [0u32; 0]);
    parent.unmask(vectors.first());
    assert_eq!(setup.take(1), [vectors.first().get()]);
    assert_eq!(parent.is_pending(vectors.first()), None);
}

#[test]
fn aliased_requesters_share_one_itt() {
    let setup = Setup::new(Hardware::default());
    let parent = ItsMsiParent::new(setup.its.clone(), IdMap::identity().with_mask(0xff00));
    let attachments =
        [0, 1, 2].map(|device| parent.attach(RequesterId::pci(1, device, 0), 32).unwrap());
    let vectors = attachments.map(|device| {
        let vectors = parent.allocate(&device, &block(32, Shape::AlignedGroup, MSI)).unwrap();
        // Another function attaches while the current one already has vectors.
        let _late = parent.attach(RequesterId::pci(1, 9, 0), 8).unwrap();
        parent.compose(&vectors, 0).unwrap().data
    });
    assert_eq!(vectors, [0, 32, 64]);
}

#[test]
fn release_of_several_blocks_is_one_write() {
    let setup = Setup::new(Hardware::default());
    let parent = bus(&setup);
    let (free, regions) = (setup.its.lpis().available(), setup.board.world().memory.live_regions());
    let device = parent.attach(FUNCTION, 4).unwrap();
    let blocks = [1, 2, 3].map(|cpu| {
        let request = block(1, Shape::Independent, MSI).with_cpu(Cpu::new(cpu));
        parent.allocate(&device, &request).unwrap()
    });
    let traffic = setup.traffic(|| parent.release(device, &mut blocks.into_iter()));
    assert_eq!((traffic.writes, traffic.reads), (1, 1));
    assert_eq!(setup.board.world().message(0, 0x1000 + FUNCTION.get(), 0), None);
    assert_eq!(
        (setup.its.lpis().available(), setup.board.world().memory.live_regions()),
        (free, regions)
    );
}

#[test]
fn release_keeps_vectors_of_aliased_requesters() {
    let setup = Setup::new(Hardware::default());
    let parent = ItsMsiParent::new(setup.its.clone(), IdMap::identity().with_mask(0xff00));
    let [one, other] =
        [0, 1].map(|device| parent.attach(RequesterId::pci(1, device, 0), 4).unwrap());
    let request = block(2, Shape::Independent, MSI);
    let (first, second) =
        (parent.allocate(&one, &request).unwrap(), parent.allocate(&other, &request).unwrap());
    let traffic = setup.traffic(|| parent.release(one, &mut [first].into_iter()));
    assert_eq!((traffic.executed.len(), traffic.writes), (3, 1));
    let data = parent.compose(&second, 0).unwrap().data;
    assert_eq!(setup.board.world().message(0, 0x100, data), Some((1, second.first().get())));
    parent.release(other, &mut [second].into_iter());
    assert!(setup.board.world().its[0].mapped.is_empty());
}

#[test]
fn a_vector_is_described_by_its_event_and_cpu() {
    let setup = Setup::new(Hardware::default());
    let parent = bus(&setup);
    let device = parent.attach(FUNCTION, 1).unwrap();
    let vectors = parent.allocate(&device, &block(1, Shape::Independent, MSI)).unwrap();
    let mut text = String::new();
    parent.describe(vectors.first(), &mut text).unwrap();
    assert_eq!(text, "its@8080000: DeviceID 0x1113, EventID 0x0 to LPI 8192 at CPU 1\n");
}

#[test]
fn foreign_vector_block_is_refused() {
    let setup = Setup::with_config(Hardware::default(), &config(0).with_device_id_bits(14));
    let parent = bus(&setup);
    let spi = msi_types::HwIrqBlock::new(msi_types::HwIrq::new(40), NonZeroU16::MIN);
    assert_eq!(parent.compose(&spi, 0), Err(MsiError::UnknownVector(spi.first())));
    assert_eq!(
        parent.begin_move(&spi, 0, Cpu::new(0)).unwrap_err(),
        MsiError::UnknownVector(spi.first())
    );
}

/// All functions send messages with the bridge's alias, and `msi-map` is the identity.
#[test]
fn functions_behind_a_conventional_bridge_can_all_attach() {
    let setup = Setup::new(Hardware::default());
    let parent = ItsMsiParent::new(setup.its.clone(), IdMap::identity());
    let alias = RequesterId::pci(1, 0, 0);
    for function in 0..8 {
        let attached = parent.attach(alias, 1);
        let device = attached.unwrap_or_else(|error| panic!("function {function}: {error}"));
        let _block = parent.allocate(&device, &block(1, Shape::Independent, MSI)).unwrap();
    }
}

#[test]
fn functions_behind_a_bridge_all_get_vectors() {
    let setup = Setup::new(Hardware::default());
    let alias = DeviceId::new(0x100);
    for device in 0..32 {
        let parent = ItsMsiParent::new(setup.its.clone(), IdMap::shared(alias));
        let function = RequesterId::pci(1, device, 0);
        let attached = parent.attach(function, 32);
        let attached = attached.unwrap_or_else(|error| panic!("{function}: {error}"));
        let vectors = parent.allocate(&attached, &block(32, Shape::AlignedGroup, MSI)).unwrap();
        let data = parent.compose(&vectors, 31).unwrap().data;
        let arrived = setup.board.world().message(0, alias.get(), data);
        assert_eq!(arrived, Some((1, vectors.hwirq(31).unwrap().get())), "{function}");
    }
}

#[test]
fn a_shared_itt_is_limited_by_the_event_ids() {
    let mut hardware = Hardware::default();
    hardware.typer = hardware.typer.with_event_id_bits_minus_one(4);
    let setup = Setup::new(hardware);
    let parent = ItsMsiParent::new(setup.its.clone(), IdMap::shared(DeviceId::new(0x100)));
    let attached = parent.attach(RequesterId::pci(1, 1, 0), 32).unwrap();
    let _vectors = parent.allocate(&attached, &block(32, Shape::Independent, MSI)).unwrap();
    let other = RequesterId::pci(1, 2, 0);
    let error = parent.attach(other, 1).unwrap_err().to_string();
    assert!(error.contains("for fewer vectors"), "{error}");
}
