//! Event tests, from mapping to unmapping.
//!
//! Sharing tests: requesters that share a DeviceID, and ITSes that share the LPIs.
//!
//! Tests for resending events after a redistributor lost its pending LPIs.

use super::setup::{Setup, config, gic, lpi, request, turn_on};
use crate::fake::{Board, Hardware};
use gic_arch::its::Command;
use gic_arch::{Lpi, Priority};
use gic_driver::{Its, ItsError};
use msi_types::{Cpu, DeviceId, Shape};

#[test]
fn a_message_arrives_where_its_event_was_mapped() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 3);
    let block = setup.map(&device, 3, 1);
    for index in 0..3 {
        assert_eq!(setup.send(lpi(&block, index)), Some((1, lpi(&block, index).get())));
    }
    assert_eq!(setup.take(1), [0, 1, 2].map(|index| lpi(&block, index).get()));
}

#[test]
fn unmapped_events_are_not_delivered() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 3);
    let block = setup.map(&device, 3, 1);
    let (first, last) = (lpi(&block, 0), lpi(&block, 2));
    setup.its.move_event(last, Cpu::new(3)).unwrap();
    setup.send(first);
    setup.send(last);

    setup.its.unmap_events(&device, block);

    let mut world = setup.board.world();
    assert_eq!((world.traces_of(first.get()), world.traces_of(last.get())), (0, 0));
    assert_eq!(world.message(0, 5, 0), None);
    drop(world);
    assert_eq!(setup.its.faults().0, 0);
}

#[test]
fn group_events_differ_in_low_bits() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 16);
    let _one = setup.map(&device, 1, 0);
    let group = request(8, 0).with_shape(Shape::AlignedGroup);
    let block = setup.its.map_events(&device, group).unwrap();
    let message = setup.its.message(lpi(&block, 0)).unwrap();
    assert_eq!(message.data % 8, 0);
    let last = setup.board.world().message(0, 5, message.data | 7);
    assert_eq!(last, Some((0, lpi(&block, 7).get())));
}

#[test]
fn a_cpu_that_was_never_on_is_refused() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1);
    let error = setup.its.map_events(&device, request(1, 9)).unwrap_err();
    assert!(matches!(error, ItsError::NotReachable(cpu, _) if cpu == Cpu::new(9)));
}

#[test]
fn an_attachment_maps_no_more_events_than_it_reserved() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 3);
    let _block = setup.map(&device, 2, 0);
    let error = setup.its.map_events(&device, request(2, 0)).unwrap_err();
    assert_eq!(error, ItsError::NoEvents { wanted: 2, limit: 3 });
}

#[test]
fn a_detached_attachments_events_can_be_reserved_again() {
    let setup = Setup::new(Hardware::default());
    let [kept, other] = [(); 2].map(|()| setup.attach(5, 16));
    let _block = setup.map(&kept, 1, 0);
    setup.its.detach(other);
    let _again = setup.attach(5, 16);
    let refused = setup.its.attach(DeviceId::new(5), 1).unwrap_err();
    assert_eq!(refused, ItsError::AttachedForFewer(DeviceId::new(5)));
}

#[test]
fn second_level_pages_are_provided_on_demand() {
    let typer = Hardware::default().typer.with_device_id_bits_minus_one(19);
    let hardware =
        Hardware { typer, indirect: true, looks_into_caches: false, ..Hardware::default() };
    let setup = Setup::new(hardware);
    let before = setup.board.world().memory.live_regions();
    for (device, pages) in [(0, 1), (8191, 1), (8192, 2), (0xf_ffff, 3)] {
        let attachment = setup.attach(device, 1);
        let block = setup.map(&attachment, 1, 0);
        assert!(setup.send(lpi(&block, 0)).is_some());
        setup.its.unmap_events(&attachment, block);
        setup.its.detach(attachment);
        assert_eq!(setup.board.world().memory.live_regions(), before + pages);
    }
}

#[test]
fn priority_change_reaches_the_redistributor() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1);
    let block = setup.map(&device, 1, 2);
    let lpi = lpi(&block, 0);
    setup.its.set_priority(lpi, Priority::new(0x43)).unwrap();
    let config = setup.board.world().redistributors[2].config_of(lpi.get());
    assert_eq!(config, Some(0x43), "0x40, RES1, enabled");
    let unmapped = Lpi::try_from(lpi.get() + 1).unwrap();
    assert_eq!(
        setup.its.set_priority(unmapped, Priority::new(0)),
        Err(ItsError::NotMapped(unmapped))
    );
}

#[test]
fn misplaced_itt_or_second_level_is_refused_and_freed() {
    let typer = Hardware::default().typer.with_device_id_bits_minus_one(19);
    let indirect = Hardware { typer, indirect: true, ..Hardware::default() };
    let itt = [0x80, 1 << 52].map(|shift| (Hardware::default(), shift));
    let second_level = [0x1000, 1 << 52].map(|shift| (indirect.clone(), shift));
    for (hardware, shift) in itt.into_iter().chain(second_level) {
        let setup = Setup::new(hardware);
        let before = setup.board.world().memory.live_regions();
        setup.board.world().memory.misplaced = Some((0, shift));
        let refused = setup.its.attach(DeviceId::new(5), 1).unwrap_err();
        assert!(matches!(refused, ItsError::Misplaced { .. }), "{refused}");
        assert_eq!(setup.board.world().memory.live_regions(), before);
        let device = setup.attach(5, 1);
        let block = setup.map(&device, 1, 0);
        assert!(setup.send(lpi(&block, 0)).is_some());
    }
}

#[test]
fn masks_use_invlpir_where_it_exists() {
    let board = Board::with_its(vec![Hardware::default()], 4);
    for cpu in [0, 1] {
        board.world().redistributors[cpu].has_invlpir = true;
    }
    let setup = Setup::on(board, &config(0));
    (0..4).for_each(|cpu| setup.bring_up(cpu));
    let device = setup.attach(5, 2);
    for (cpu, commands) in [(0, 0), (2, 4)] {
        let block = setup.map(&device, 1, cpu);
        let traffic = setup.traffic(|| {
            setup.its.mask(lpi(&block, 0)).unwrap();
            assert!(
                !setup.board.world().redistributors[cpu as usize].is_enabled(lpi(&block, 0).get())
            );
            setup.its.unmask(lpi(&block, 0)).unwrap();
        });
        assert_eq!(traffic.executed.len(), commands, "CPU {cpu}");
        let invalidations = setup.board.world().redistributors[cpu as usize].invalidations;
        assert_eq!(invalidations, if commands == 0 { 2 } else { 0 });
        setup.its.unmap_events(&device, block);
    }
}

#[test]
fn masks_use_the_queue_while_a_move_is_not_finished() {
    let board = Board::with_its(vec![Hardware::default()], 4);
    board.world().redistributors.iter_mut().for_each(|rd| rd.has_invlpir = true);
    let setup = Setup::on(board, &config(0));
    (0..4).for_each(|cpu| setup.bring_up(cpu));
    let device = setup.attach(5, 1);
    let block = setup.map(&device, 1, 0);
    setup.board.world().set_stuck(true);
    setup.its.move_event(lpi(&block, 0), Cpu::new(1)).unwrap_err();
    let error = setup.its.mask(lpi(&block, 0)).unwrap_err();
    assert!(matches!(error, ItsError::Fault(_)), "{error}");
    setup.board.world().set_stuck(false);
    setup.its.mask(lpi(&block, 0)).unwrap();
    setup.send(lpi(&block, 0));
    assert_eq!([0, 1].map(|cpu| setup.take(cpu)), [[0u32; 0]; 2]);
}

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

#[test]
fn a_message_that_was_pending_arrives_after_a_resend() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 2);
    let block = setup.map(&device, 2, 1);
    setup.send(lpi(&block, 1));
    setup.board.world().redistributors[1].pending.clear();

    assert_eq!(setup.its.resend(Cpu::new(1)), Ok(2));
    assert_eq!(setup.take(1), [lpi(&block, 0).get(), lpi(&block, 1).get()]);
}

#[test]
fn events_of_other_cpus_are_not_resent() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 2);
    let (here, _there) = (setup.map(&device, 1, 1), setup.map(&device, 1, 2));
    assert_eq!(setup.its.resend(Cpu::new(1)), Ok(1));
    assert_eq!(setup.take(1), [lpi(&here, 0).get()]);
    assert!(setup.take(2).is_empty());
}

#[test]
fn a_masked_event_stays_pending_after_a_resend() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1);
    let block = setup.map(&device, 1, 1);
    setup.its.mask(lpi(&block, 0)).unwrap();
    setup.its.resend(Cpu::new(1)).unwrap();
    assert!(setup.take(1).is_empty());
    setup.its.unmask(lpi(&block, 0)).unwrap();
    assert_eq!(setup.take(1), [lpi(&block, 0).get()]);
}

#[test]
fn a_resend_posts_at_most_64_int_commands_in_a_row() {
    let setup = Setup::new(Hardware { pace: Some(9), ..Hardware::default() });
    let device = setup.attach(5, 1500);
    let block = setup.map(&device, 1500, 1);
    let traffic = setup.traffic(|| assert_eq!(setup.its.resend(Cpu::new(1)), Ok(1500)));
    let (mut in_a_row, mut most) = (0, 0);
    for command in &traffic.executed {
        in_a_row = if matches!(command, Command::Int { .. }) { in_a_row + 1 } else { 0 };
        most = most.max(in_a_row);
    }
    assert_eq!(most, 64, "number of commands posted while the queue is locked");
    assert!(matches!(traffic.executed.last(), Some(Command::Sync { .. })));
    assert_eq!(setup.take(1).len(), 1500);
    assert_eq!(block.count().get(), 1500);
}

#[test]
fn a_resend_that_timed_out_can_be_repeated() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 200);
    let _block = setup.map(&device, 200, 1);
    setup.board.world().set_stuck(true);
    assert!(matches!(setup.its.resend(Cpu::new(1)), Err(ItsError::Fault { .. })));
    setup.board.world().set_stuck(false);
    assert_eq!(setup.its.resend(Cpu::new(1)), Ok(200));
    assert_eq!(setup.take(1).len(), 200);
}

#[test]
fn resend_for_an_offline_cpu_is_refused() {
    let setup = Setup::new(Hardware::default());
    setup.its.cpu_off(Cpu::new(1), Cpu::new(3)).unwrap();
    assert!(matches!(setup.its.resend(Cpu::new(1)), Err(ItsError::NotReachable(..))));
}
