//! Tests for timeouts, faulty commands and slow execution.

use super::queue::opcodes;
use super::setup::{Setup, lpi, request};
use crate::fake::{Board, Hardware, interrupt_at};
use gic_arch::its::{Command, Opcode};
use gic_driver::{Its, ItsError};
use msi_types::{ControllerFault, Cpu, DeviceId, EventId, HwIrqBlock, Pending};

fn fault(error: ItsError) -> ControllerFault {
    match error {
        ItsError::Fault(fault) => fault,
        other => panic!("{other}"),
    }
}

/// Maps the events of device 5 to CPU 1.
fn mapped(hardware: Hardware, events: u16) -> (Setup, HwIrqBlock) {
    let setup = Setup::new(hardware);
    let block = setup.map(&setup.attach(5, events.into()), events, 1);
    (setup, block)
}

#[test]
fn timeout_names_the_oldest_command() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 2);
    setup.board.world().set_stuck(true);
    let error = setup.its.map_events(&device, request(2, 1)).unwrap_err();
    let fault = fault(error);
    assert_eq!(
        (fault.operation, fault.device, fault.reason),
        ("MAPD", Some(DeviceId::new(5)), "timeout")
    );
    assert_eq!(error.to_string(), "its@8080000, MAPD device 0x5: timeout");
}

#[test]
fn an_its_that_is_slow_but_works_is_no_timeout() {
    let setup = Setup::new(Hardware { pace: Some(1), pause: 3, ..Hardware::default() });
    setup.board.world().patience = 5;
    let device = setup.attach(5, 100);
    let _block = setup.map(&device, 100, 1);
}

#[test]
fn an_impossible_creadr_value_does_not_count_as_progress() {
    let (setup, block) = mapped(Hardware { pace: Some(1), ..Hardware::default() }, 1);
    setup.board.world().its[0].nonsense = true;
    assert_eq!(fault(setup.its.invalidate(lpi(&block, 0)).unwrap_err()).reason, "timeout");
    setup.board.world().its[0].nonsense = false;
    setup.its.invalidate(lpi(&block, 0)).unwrap();
}

#[test]
fn resources_of_a_timed_out_mapping_are_kept_until_the_its_progresses() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 2);
    let free = setup.its.lpis().available();
    setup.board.world().set_stuck(true);
    setup.its.map_events(&device, request(2, 1)).unwrap_err();
    assert_eq!(setup.its.lpis().available(), free - 2);

    setup.board.world().set_stuck(false);
    let block = setup.map(&device, 2, 1);

    assert_eq!(setup.its.lpis().available(), free - 2);
    assert_eq!(setup.send(lpi(&block, 1)), Some((1, lpi(&block, 1).get())));
}

#[test]
fn full_ring_is_never_overrun() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 400);
    let free = setup.its.lpis().available();
    setup.board.world().set_stuck(true);
    setup.its.map_events(&device, request(300, 1)).unwrap_err();
    setup.its.map_events(&device, request(100, 1)).unwrap_err();

    setup.board.world().set_stuck(false);
    let block = setup.map(&device, 400, 1);
    assert_eq!(setup.its.lpis().available(), free - 400);
    setup.its.unmap_events(&device, block);
    setup.its.detach(device);
    assert_eq!(setup.its.lpis().available(), free);
    assert!(setup.board.world().its[0].mapped.is_empty());
}

#[test]
fn a_mapping_refused_by_a_full_ring_can_be_retried() {
    let (setup, block) = mapped(Hardware::default(), 1);
    setup.board.world().set_stuck(true);
    for _ in 0..70 {
        setup.its.invalidate(lpi(&block, 0)).unwrap_err();
    }
    let other = setup.attach(6, 1);
    setup.its.map_events(&other, request(1, 2)).unwrap_err();
    setup.board.world().set_stuck(false);
    let block = setup.map(&other, 1, 2);
    assert_eq!(setup.send(lpi(&block, 0)), Some((2, lpi(&block, 0).get())));
}

#[test]
fn a_timed_out_move_restores_the_old_cpu() {
    let (setup, block) = mapped(Hardware::default(), 1);
    setup.board.world().set_stuck(true);
    setup.its.move_event(lpi(&block, 0), Cpu::new(2)).unwrap_err();
    setup.board.world().set_stuck(false);
    setup.its.invalidate(lpi(&block, 0)).unwrap();
    assert_eq!(setup.send(lpi(&block, 0)).unwrap().0, 1);
    assert_eq!(setup.its.event_of(lpi(&block, 0)).unwrap().2, Cpu::new(1));
}

/// Removes an event from the ITS without the driver's knowledge, so that the next command for it is
/// faulty.
fn sabotage(setup: &Setup, device: u32) {
    let mut world = setup.board.world();
    let (itt, _) = world.its[0].mapped[&device];
    world.memory.device_write64(itt, 0);
}

#[test]
fn faulty_command_is_reported_to_its_caller() {
    for pace in [None, Some(1)] {
        let (setup, block) = mapped(Hardware { pace, ..Hardware::default() }, 2);
        sabotage(&setup, 5);

        let fault = fault(setup.its.set_pending(lpi(&block, 0), Pending::Set).unwrap_err());

        let event = Some(EventId::new(0));
        assert_eq!((fault.operation, fault.event, fault.reason), ("INT", event, "queue stalled"));
        setup.its.set_pending(lpi(&block, 1), Pending::Set).unwrap();
        assert_eq!(setup.take(1), [lpi(&block, 1).get()]);
    }
}

#[test]
fn a_faulty_command_is_replaced_by_a_sync() {
    let (setup, block) = mapped(Hardware::default(), 1);
    sabotage(&setup, 5);
    let traffic = setup.traffic(|| assert!(setup.its.invalidate(lpi(&block, 0)).is_err()));
    assert_eq!(opcodes(&traffic), ["SYNC", "SYNC"]);
}

#[test]
fn a_fault_is_not_reported_to_other_callers() {
    let setup = Setup::new(Hardware { pace: Some(1), ..Hardware::default() });
    setup.board.world().patience = 100_000;
    let bad = setup.attach(5, 1);
    let bad_block = setup.map(&bad, 1, 1);
    sabotage(&setup, 5);
    std::thread::scope(|scope| {
        for thread in 10..13_u32 {
            let setup = &setup;
            scope.spawn(move || {
                let device = setup.attach(thread, 1);
                let block = setup.map(&device, 1, 0);
                for _ in 0..200 {
                    setup.its.invalidate(lpi(&block, 0)).unwrap();
                }
            });
        }
        for _ in 0..100 {
            let error = setup.its.invalidate(lpi(&bad_block, 0)).unwrap_err();
            assert_eq!(fault(error).operation, "INV");
        }
    });
}

#[test]
fn lost_event_does_not_block_unmapping() {
    for stalls in [true, false] {
        let setup = Setup::new(Hardware { stalls, ..Hardware::default() });
        let regions = setup.board.world().memory.live_regions();
        let device = setup.attach(5, 4);
        let block = setup.map(&device, 4, 1);
        sabotage(&setup, 5);
        setup.its.release(device, &mut [block].into_iter());
        assert!(setup.board.world().its[0].mapped.is_empty());
        assert_eq!(setup.board.world().memory.live_regions(), regions);
        assert_eq!(setup.its.lpis().available(), setup.its.lpis().count());
    }
}

#[test]
fn release_during_a_hang_keeps_the_itt_until_the_its_recovers() {
    let setup = Setup::new(Hardware::default());
    setup.board.world().patience = 3;
    let regions = setup.board.world().memory.live_regions();
    let device = setup.attach(5, 4);
    let blocks = [setup.map(&device, 2, 1), setup.map(&device, 2, 2)];
    setup.board.world().set_stuck(true);
    setup.its.release(device, &mut blocks.into_iter());
    assert_eq!(setup.board.world().memory.live_regions(), regions + 1);
    assert_eq!(setup.its.lpis().available(), setup.its.lpis().count() - 4);
    setup.board.world().set_stuck(false);
    // The next operation, for another device, completes the release.
    let other = setup.attach(6, 1);
    setup.its.detach(other);
    assert_eq!(setup.board.world().memory.live_regions(), regions);
    assert_eq!(setup.its.lpis().available(), setup.its.lpis().count());
}

#[test]
fn a_device_that_the_its_refuses_is_rolled_back() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 2);
    let free = setup.its.lpis().available();
    setup.board.world().its[0].hardware.typer.set_device_id_bits_minus_one(1);

    let fault = fault(setup.its.map_events(&device, request(2, 1)).unwrap_err());

    assert_eq!((fault.operation, fault.reason), ("MAPD", "queue stalled"));
    assert_eq!(setup.its.lpis().available(), free);
    assert_eq!(setup.its.faults(), (0, None), "no event of an unknown device is discarded");
    setup.board.world().its[0].hardware.typer.set_device_id_bits_minus_one(15);
    let block = setup.map(&device, 2, 1);
    assert_eq!(setup.send(lpi(&block, 1)), Some((1, lpi(&block, 1).get())));
}

#[test]
fn events_that_the_its_refuses_are_rolled_back() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 8);
    let free = setup.its.lpis().available();
    setup.board.world().its[0].hardware.lpis = 3;

    let fault = fault(setup.its.map_events(&device, request(8, 1)).unwrap_err());

    assert_eq!((fault.operation, fault.event), ("MAPTI", Some(EventId::new(3))));
    assert_eq!(setup.its.lpis().available(), free);
    setup.board.world().its[0].hardware.lpis = 8192;
    let block = setup.map(&device, 8, 1);
    assert_eq!(setup.send(lpi(&block, 7)), Some((1, lpi(&block, 7).get())));
}

#[test]
fn a_faulty_first_command_does_not_block_later_commands() {
    let board = Board::with_its(vec![Hardware::default()], 4);
    let gic = super::setup::gic(&board);
    let its = Its::new(gic.clone(), &super::setup::config(0)).unwrap();
    for cpu in 0..2 {
        super::setup::turn_on(&gic, cpu);
    }
    // The redistributor's processor number differs from the number by which the ITS knows it.
    board.world().redistributors[1].target = 77;

    let fault = fault(its.cpu_on(Cpu::new(1)).unwrap_err());

    assert_eq!((fault.operation, fault.reason), ("MAPC", "queue stalled"));
    its.cpu_on(Cpu::new(0)).unwrap();
}

#[test]
fn its_that_skips_faults_continues() {
    let (setup, block) = mapped(Hardware { stalls: false, ..Hardware::default() }, 1);
    sabotage(&setup, 5);
    let traffic = setup.traffic(|| setup.its.invalidate(lpi(&block, 0)).unwrap());
    assert!(traffic.executed.iter().any(|command: &Command| command.opcode() == Opcode::Sync));
}

#[test]
fn unresponsive_its_fails_later_callers_at_once() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 4);
    let block = setup.map(&device, 1, 1);
    setup.board.world().set_stuck(true);
    setup.its.move_event(lpi(&block, 0), Cpu::new(2)).unwrap_err();

    let before = setup.board.world().turns;
    setup.its.mask(lpi(&block, 0)).unwrap_err();
    setup.its.map_events(&device, request(2, 1)).unwrap_err();
    setup.its.cpu_off(Cpu::new(3), Cpu::new(1)).unwrap_err();
    assert_eq!(setup.board.world().turns, before, "number of turns that were waited");

    setup.board.world().set_stuck(false);
    setup.its.unmask(lpi(&block, 0)).unwrap();
    let _block = setup.map(&device, 3, 1);
    assert_eq!(setup.send(lpi(&block, 0)).unwrap().0, 1);
}

#[test]
fn a_handler_behind_a_long_batch_waits_no_longer_than_one_timeout() {
    let setup = Setup::new(Hardware { pace: Some(1), pause: 3, ..Hardware::default() });
    let one = setup.attach(5, 1);
    let first = lpi(&setup.map(&one, 1, 1), 0);
    setup.board.world().patience = 10;
    let (its, board) = (setup.its.clone(), setup.board.clone());
    interrupt_at(3, move || {
        let before = board.world().turns;
        assert_eq!(fault(its.mask(first).unwrap_err()).reason, "timeout");
        assert!(board.world().turns - before <= 11, "{} turns", board.world().turns - before);
    });
    let device = setup.attach(6, 100);
    // The timeout in the handler does not make the ITS unresponsive, so the task continues to wait
    // afterwards.
    let block = setup.map(&device, 100, 1);
    assert_eq!(setup.send(lpi(&block, 99)), Some((1, lpi(&block, 99).get())));
    setup.its.move_event(first, Cpu::new(2)).unwrap();
    setup.send(first);
    assert_eq!(setup.take(2), [0u32; 0], "the mask took effect");
}
