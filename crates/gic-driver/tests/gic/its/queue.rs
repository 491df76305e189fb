//! Command queue tests: batches, wrap-around, slow execution, timeouts and faulty commands.

use super::setup::{Setup, lpi, request};
use crate::fake::{Hardware, Traffic};
use crate::fake::{interrupt_at, while_allocating};
use gic_arch::its::{Command, Opcode};
use gic_driver::ItsError;
use msi_types::{ControllerFault, Cpu, DeviceId, EventId, Pending};

fn fault(error: ItsError) -> ControllerFault {
    match error {
        ItsError::Fault(fault) => fault,
        other => panic!("{other}"),
    }
}

fn opcodes(traffic: &Traffic) -> Vec<&'static str> {
    traffic.executed.iter().map(|command| command.opcode().name()).collect()
}

#[test]
fn a_device_is_set_up_by_one_write_and_one_read() {
    let setup = Setup::new(Hardware::default());
    let traffic = setup.traffic(|| {
        let device = setup.attach(5, 3);
        let _block = setup.map(&device, 3, 1);
    });
    assert_eq!(opcodes(&traffic), ["MAPD", "MAPTI", "MAPTI", "MAPTI", "INVALL", "SYNC"]);
    assert_eq!((traffic.writes, traffic.reads), (1, 1));
}

#[test]
fn setup_takes_one_write_per_cpu_and_device() {
    // Set up an NVMe disk, a network card, an entropy source and an edu device on two CPUs. With
    // separate mappings and invalidations, this would take 66 commands, 37 writes and 138 reads.
    let setup = Setup::new(Hardware::default());
    let traffic = setup.traffic(|| {
        setup.cpu_on(0).unwrap();
        setup.cpu_on(1).unwrap();
        for (device, vectors) in [(0x08, 3), (0x10, 4), (0x18, 2), (0x20, 1)] {
            let attachment = setup.attach(device, vectors.into());
            let _block = setup.map(&attachment, vectors, u32::from(device > 0x10));
        }
    });
    assert_eq!((traffic.executed.len(), traffic.writes, traffic.reads), (28, 6, 6));
}

#[test]
fn a_single_event_is_invalidated_alone() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1);
    let traffic = setup.traffic(|| {
        let _block = setup.map(&device, 1, 1);
    });
    assert_eq!(opcodes(&traffic), ["MAPD", "MAPTI", "INV", "SYNC"]);
}

#[test]
fn a_device_is_torn_down_by_one_write() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 5);
    let blocks = [setup.map(&device, 2, 1), setup.map(&device, 1, 2), setup.map(&device, 2, 1)];
    setup.its.move_event(lpi(&blocks[0], 1), Cpu::new(3)).unwrap();
    let traffic = setup.traffic(|| setup.its.release(device, &mut blocks.into_iter()));
    let mut expected = vec!["DISCARD"; 5];
    expected.extend(["MAPD", "SYNC", "SYNC", "SYNC"]);
    assert_eq!((opcodes(&traffic), traffic.writes, traffic.reads), (expected, 1, 1));
}

#[test]
fn release_of_a_large_device_fits_the_ring() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1000);
    let block = setup.map(&device, 1000, 1);
    let before = setup.its.lpis().available();
    let traffic = setup.traffic(|| setup.its.release(device, &mut [block].into_iter()));
    assert_eq!(traffic.executed.len(), 1002);
    assert!(traffic.writes <= 1 + 1002_u32.div_ceil(63), "{} writes", traffic.writes);
    assert_eq!(
        (setup.its.lpis().available(), setup.board.world().its[0].mapped.len()),
        (before + 1000, 0)
    );
}

#[test]
fn freeing_block_by_block_costs_a_write_each() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 3);
    let block = setup.map(&device, 3, 1);
    setup.its.move_event(lpi(&block, 1), Cpu::new(2)).unwrap();
    let traffic = setup.traffic(|| {
        setup.its.unmap_events(&device, block);
        setup.its.detach(device);
    });
    let expected = ["DISCARD", "DISCARD", "DISCARD", "SYNC", "SYNC", "MAPD", "SYNC"];
    assert_eq!((opcodes(&traffic), traffic.writes, traffic.reads), (expected.to_vec(), 2, 2));
}

#[test]
fn move_and_mask_cost_one_write_and_read() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1);
    let block = setup.map(&device, 1, 1);
    let traffic = setup.traffic(|| {
        setup.its.move_event(lpi(&block, 0), Cpu::new(2)).unwrap();
        setup.its.move_event(lpi(&block, 0), Cpu::new(2)).unwrap();
        setup.its.mask(lpi(&block, 0)).unwrap();
    });
    // INV is needed because the new redistributor may have an old configuration cached.
    let expected = ["MOVI", "INV", "SYNC", "SYNC", "INV", "SYNC"];
    assert_eq!((opcodes(&traffic), traffic.writes, traffic.reads), (expected.to_vec(), 2, 2));
}

#[test]
fn device_without_events_sends_no_command() {
    let setup = Setup::new(Hardware::default());
    let traffic = setup.traffic(|| setup.its.detach(setup.attach(5, 3)));
    assert_eq!(traffic, Traffic::default());
}

#[test]
fn batch_larger_than_the_ring_completes() {
    for pace in [None, Some(1), Some(7), Some(1000)] {
        let setup = Setup::new(Hardware { pace, ..Hardware::default() });
        setup.board.world().patience = 3;
        let device = setup.attach(5, 1000);
        let traffic = setup.traffic(|| {
            let block = setup.map(&device, 1000, 1);
            assert_eq!(setup.send(lpi(&block, 999)), Some((1, lpi(&block, 999).get())));
        });
        assert_eq!(traffic.executed.len(), 1 + 1000 + 2);
        // The ring holds 127 commands, and the driver refills it when half of it is free.
        assert!(traffic.writes <= 1 + 1003_u32.div_ceil(63), "{} writes", traffic.writes);
    }
}

#[test]
fn ring_wraps_at_any_pace() {
    for pace in [None, Some(1), Some(2), Some(5)] {
        let setup = Setup::new(Hardware { pace, ..Hardware::default() });
        let device = setup.attach(5, 1);
        let block = setup.map(&device, 1, 0);
        for turn in 0..400 {
            setup.its.move_event(lpi(&block, 0), Cpu::new(turn % 4)).unwrap();
            assert_eq!(setup.send(lpi(&block, 0)).unwrap().0, turn as usize % 4);
        }
    }
}

#[test]
fn concurrent_waiters_see_their_own_commands() {
    let setup = Setup::new(Hardware { pace: Some(1), ..Hardware::default() });
    setup.board.world().patience = 100_000;
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let setup = &setup;
            scope.spawn(move || {
                let device = setup.attach(thread, 4);
                for round in 0..50 {
                    let block = setup.map(&device, 4, round % 4);
                    let target: usize = [1, 2, 3, 0][round as usize % 4];
                    for index in 0..4 {
                        let lpi = lpi(&block, index);
                        setup.its.move_event(lpi, Cpu::new((round + 1) % 4)).unwrap();
                        assert_eq!(setup.send(lpi).unwrap().0, target);
                        setup.its.mask(lpi).unwrap();
                        assert!(!setup.board.world().redistributors[target].is_enabled(lpi.get()));
                    }
                    setup.its.unmap_events(&device, block);
                }
                setup.its.detach(device);
            });
        }
    });
    assert_eq!(setup.its.faults(), (0, None));
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
fn impossible_creadr_is_no_progress() {
    let setup = Setup::new(Hardware { pace: Some(1), ..Hardware::default() });
    let device = setup.attach(5, 1);
    let block = setup.map(&device, 1, 1);
    setup.board.world().its[0].nonsense = true;
    assert_eq!(fault(setup.its.invalidate(lpi(&block, 0)).unwrap_err()).reason, "timeout");
    setup.board.world().its[0].nonsense = false;
    setup.its.invalidate(lpi(&block, 0)).unwrap();
}

#[test]
fn timed_out_resources_wait_for_progress() {
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
fn unposted_mapping_is_posted_later() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1);
    let block = setup.map(&device, 1, 1);
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
fn a_move_that_timed_out_ends_where_it_began() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1);
    let block = setup.map(&device, 1, 1);
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
        let setup = Setup::new(Hardware { pace, ..Hardware::default() });
        let device = setup.attach(5, 2);
        let block = setup.map(&device, 2, 1);
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
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1);
    let block = setup.map(&device, 1, 1);
    sabotage(&setup, 5);
    let traffic = setup.traffic(|| assert!(setup.its.invalidate(lpi(&block, 0)).is_err()));
    assert_eq!(opcodes(&traffic), ["SYNC", "SYNC"]);
}

#[test]
fn a_fault_is_not_reported_to_others() {
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
fn release_during_a_hang_keeps_the_table() {
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
fn the_very_first_command_may_be_faulty() {
    let board = crate::fake::Board::with_its(vec![Hardware::default()], 4);
    let gic = super::setup::gic(&board);
    let its = gic_driver::Its::new(gic.clone(), &super::setup::config(0)).unwrap();
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
    let setup = Setup::new(Hardware { stalls: false, ..Hardware::default() });
    let device = setup.attach(5, 1);
    let block = setup.map(&device, 1, 1);
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
fn a_handler_waits_one_bound_behind_a_long_batch() {
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

#[test]
fn a_task_that_waits_lets_the_holder_run() {
    let setup = Setup::new(Hardware::default());
    let board = setup.board.clone();
    let (holds, held) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            // A task of strictly higher priority preempts the lock holder.
            while_allocating(move || {
                holds.send(()).unwrap();
                let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
                while board.world().yields == 0 {
                    assert!(
                        std::time::Instant::now() < deadline,
                        "the waiting task does not let the holder run"
                    );
                    std::thread::yield_now();
                }
            });
            setup.attach(5, 1)
        });
        held.recv().unwrap();
        let attachments = [setup.attach(6, 1), holder.join().unwrap()];
        for attachment in attachments {
            setup.its.detach(attachment);
        }
    });
}
