//! Sharing tests: requesters that share a DeviceID, and ITSes that share the LPIs.

use super::setup::{Setup, config, gic, lpi, request, turn_on};
use crate::fake::Board;
use crate::fake::Hardware;
use gic_driver::{Its, ItsError};
use msi_types::{Cpu, DeviceId};

#[test]
fn attachments_of_one_device_share_the_itt_but_no_events() {
    let setup = Setup::new(Hardware::default());
    let (one, other) = (setup.attach(5, 16), setup.attach(5, 16));
    // The 16-event table was replaced with a 32-event one, because no attachment had events yet.
    let (first, second) = (setup.map(&one, 16, 0), setup.map(&other, 16, 1));
    let events = |block, index| setup.its.event_of(lpi(block, index)).unwrap().1.get();
    assert_eq!((events(&first, 15), events(&second, 0)), (15, 16));
    assert_eq!(setup.board.world().its[0].mapped.len(), 1);
}

#[test]
fn a_device_is_unmapped_with_its_last_attachment() {
    let setup = Setup::new(Hardware::default());
    let before = setup.board.world().memory.live_regions();
    let (one, other) = (setup.attach(5, 2), setup.attach(5, 2));
    let block = setup.map(&one, 2, 0);
    setup.its.unmap_events(&one, block);
    setup.its.detach(one);
    let block = setup.map(&other, 2, 0);
    assert!(setup.send(lpi(&block, 0)).is_some());
    setup.its.unmap_events(&other, block);
    setup.its.detach(other);
    assert!(setup.board.world().its[0].mapped.is_empty());
    assert_eq!(setup.board.world().memory.live_regions(), before);
}

#[test]
fn an_attachment_that_needs_a_larger_itt_is_refused_while_in_use() {
    let setup = Setup::new(Hardware::default());
    let one = setup.attach(5, 32);
    let _block = setup.map(&one, 32, 0);
    let id = DeviceId::new(5);
    assert_eq!(setup.its.attach(id, 1).unwrap_err(), ItsError::AttachedForFewer(id));
}

#[test]
fn an_itt_is_unmapped_before_it_is_replaced() {
    let setup = Setup::new(Hardware::default());
    let one = setup.attach(5, 2);
    let block = setup.map(&one, 2, 0);
    setup.its.unmap_events(&one, block);
    let other = setup.attach(5, 30);
    let block = setup.map(&other, 30, 3);
    assert_eq!(setup.send(lpi(&block, 29)), Some((3, lpi(&block, 29).get())));
}

#[test]
fn unmapping_a_block_of_another_device_is_refused() {
    let setup = Setup::new(Hardware::default());
    let (one, other) = (setup.attach(5, 1), setup.attach(6, 1));
    let block = setup.map(&one, 1, 0);
    let first = lpi(&block, 0);
    setup.its.unmap_events(&other, block);
    assert_eq!(setup.its.faults().0, 1);
    assert_eq!(setup.send(first), Some((0, first.get())));
}

#[test]
fn two_itses_share_the_lpi_range_but_no_events() {
    let board = Board::with_its(vec![Hardware::default(), Hardware::default()], 4);
    let gic = gic(&board);
    turn_on(&gic, 2);
    let its = [0, 1].map(|index| Its::new(gic.clone(), &config(index)).unwrap());
    for its in &its {
        its.cpu_on(Cpu::new(2)).unwrap();
    }
    let blocks = its.each_ref().map(|its| {
        let device = its.attach(DeviceId::new(5), 1).unwrap();
        its.map_events(&device, request(1, 2)).unwrap()
    });
    let (first, second) = (lpi(&blocks[0], 0), lpi(&blocks[1], 0));
    assert_ne!(first, second);
    assert_eq!(its[0].event_of(second), None);
    assert_eq!(its[0].mask(second), Err(ItsError::NotMapped(second)));
    assert_eq!(board.world().message(1, 5, 0), Some((2, second.get())));
}

#[test]
fn a_mapping_is_refused_when_lpis_are_exhausted() {
    // `GICD_TYPER.num_LPIs` = 1 means that four LPIs are implemented.
    let setup = Setup::with_lpis(Hardware::default(), &config(0), 1);
    let device = setup.attach(5, 8);
    let error = setup.its.map_events(&device, request(5, 0)).unwrap_err();
    assert_eq!(error, ItsError::NoLpis { wanted: 5 });
    let block = setup.map(&device, 4, 0);
    assert_eq!(setup.its.event_of(lpi(&block, 0)), Some((DeviceId::new(5), 0.into(), Cpu::new(0))));
    setup.its.unmap_events(&device, block);
    let _block = setup.map(&device, 4, 0);
}
