//! Out-of-memory tests: calls must fail without leaking memory or leaving partial changes.

use super::setup::{Setup, config, gic, lpi, request};
use crate::fake::Board;
use crate::fake::Hardware;
use doorbell_test_support::{after_failures, with_allocations};
use gic_driver::its::{IdMap, IdRange, ProbeError};
use gic_driver::{Its, ItsError};
use msi_types::{Cpu, DeviceId, RequesterId};
use std::sync::Arc;

#[test]
fn an_its_that_finds_no_heap_stays_disabled() {
    let board = Board::with_its(vec![Hardware::default()], 4);
    let gic = gic(&board);
    let before = board.world().memory.live_regions();
    let config = config(0);
    after_failures(
        4,
        || Its::new(gic.clone(), &config),
        |error| {
            assert!(matches!(error, ProbeError::NoMemory { .. }), "{error}");
            let world = board.world();
            assert_eq!(world.memory.live_regions(), before);
            assert!(!world.its[0].is_enabled());
            assert!(world.its[0].tables.iter().all(|table| !table.valid()));
        },
    );
}

#[test]
fn an_attachment_without_heap_is_refused() {
    let setup = Setup::new(Hardware::default());
    let before = setup.board.world().memory.live_regions();
    let device = after_failures(
        2,
        || setup.its.attach(DeviceId::new(5), 4),
        |error| {
            assert!(matches!(error, ItsError::NoMemory(_)), "{error}");
            assert_eq!(setup.board.world().memory.live_regions(), before);
        },
    );
    let block = setup.map(&device, 4, 1);
    assert!(setup.send(lpi(&block, 3)).is_some());
}

#[test]
fn a_second_level_page_without_heap_is_refused() {
    let typer = Hardware::default().typer.with_device_id_bits_minus_one(19);
    let setup = Setup::new(Hardware { typer, indirect: true, ..Hardware::default() });
    let before = setup.board.world().memory.live_regions();
    let device = after_failures(
        2,
        || setup.its.attach(DeviceId::new(5), 4),
        |error| assert!(matches!(error, ItsError::NoMemory(_)), "{error}"),
    );
    assert_eq!(
        setup.board.world().memory.live_regions(),
        before + 2,
        "a second-level page and the device's translation table"
    );
    let block = setup.map(&device, 4, 1);
    assert!(setup.send(lpi(&block, 3)).is_some());
}

#[test]
fn events_without_heap_are_refused() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 4);
    let free = setup.its.lpis().available();
    let block = after_failures(
        1,
        || setup.its.map_events(&device, request(4, 1)),
        |error| {
            assert!(matches!(error, ItsError::NoMemory(_)), "{error}");
            assert_eq!(setup.its.lpis().available(), free);
            assert!(setup.board.world().its[0].mapped.is_empty());
        },
    );
    assert_eq!(setup.send(lpi(&block, 3)), Some((1, lpi(&block, 3).get())));
}

#[test]
fn cpu_off_without_heap_is_refused() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 3);
    let block = setup.map(&device, 2, 1);
    let moved = after_failures(
        1,
        || setup.its.cpu_off(Cpu::new(1), Cpu::new(3)),
        |error| {
            assert!(matches!(error, ItsError::NoMemory(_)), "{error}");
            assert_eq!(setup.send(lpi(&block, 0)), Some((1, lpi(&block, 0).get())));
            setup.its.move_event(lpi(&block, 1), Cpu::new(2)).unwrap();
            setup.its.move_event(lpi(&block, 1), Cpu::new(1)).unwrap();
        },
    );
    assert_eq!(moved, [lpi(&block, 0), lpi(&block, 1)]);
}

#[test]
fn release_and_unmap_allocate_no_heap() {
    let setup = Setup::new(Hardware::default());
    let before = setup.board.world().memory.live_regions();
    let (one, other) = (setup.attach(5, 8), setup.attach(6, 4));
    let mut blocks =
        [setup.map(&one, 2, 1), setup.map(&one, 1, 2), setup.map(&one, 1, 3)].into_iter();
    let single = setup.map(&other, 4, 0);
    with_allocations(0, || {
        setup.its.move_event(lpi(&single, 1), Cpu::new(3)).unwrap();
        setup.its.mask(lpi(&single, 1)).unwrap();
        setup.its.release(one, &mut blocks);
        setup.its.unmap_events(&other, single);
        setup.its.detach(other);
    });
    assert_eq!(setup.its.faults(), (0, None));
    assert_eq!(setup.its.lpis().available(), setup.its.lpis().count());
    assert_eq!(setup.board.world().memory.live_regions(), before);
    assert!(setup.board.world().its[0].mapped.is_empty());
}

#[test]
fn leaking_the_resources_of_a_hung_its_needs_no_heap() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 4);
    let block = setup.map(&device, 4, 1);
    let gone = lpi(&block, 0);
    setup.board.world().set_stuck(true);
    with_allocations(0, || setup.its.release(device, &mut [block].into_iter()));
    setup.board.world().set_stuck(false);

    assert!(setup.its.faults().0 > 0);
    assert_eq!(
        (setup.its.event_of(gone), setup.its.lpis().available()),
        (None, setup.its.lpis().count() - 4)
    );
    let other = setup.attach(6, 4);
    let block = setup.map(&other, 4, 1);
    assert!(setup.send(lpi(&block, 3)).is_some());
}

#[test]
fn an_id_map_of_one_range_allocates_no_heap() {
    let requester = RequesterId::new(3);
    let device =
        with_allocations(0, || IdMap::single(requester, DeviceId::new(9)).device(requester));
    assert_eq!(device, Some(DeviceId::new(9)));
    assert!(with_allocations(0, || IdMap::identity().device(requester)).is_some());
}

#[test]
fn an_id_map_of_many_ranges_reuses_the_callers_vec() {
    let range = IdRange {
        first_requester: RequesterId::new(8),
        length: 8,
        first_device: DeviceId::new(0x100),
    };
    let ranges = vec![range, IdRange { first_requester: RequesterId::new(0), ..range }];
    let device =
        with_allocations(0, || IdMap::new(ranges).with_mask(0xf).device(RequesterId::new(0x29)));
    assert_eq!(device, Some(DeviceId::new(0x101)));
}

#[test]
fn clearing_adopted_lpis_needs_no_heap() {
    let board = Board::with_its(vec![Hardware::default()], 4);
    board.world().leave_lpis(&[0, 1, 2, 3]);
    let gic = gic(&board);
    let its = after_failures(5, || Its::new(gic.clone(), &config(0)), drop);
    let setup = Setup { board, gic, its: Arc::new(its) };
    (0..4).for_each(|cpu| setup.bring_up(cpu));
    let device = setup.attach(5, 64);
    let block = setup.map(&device, 1, 0);
    with_allocations(0, || setup.its.unmap_events(&device, block));
    let block = with_allocations(0, || setup.its.map_events(&device, request(40, 1))).unwrap();
    assert!(setup.send(lpi(&block, 39)).is_some());
    assert_eq!(setup.take(1).len(), 1);
}
