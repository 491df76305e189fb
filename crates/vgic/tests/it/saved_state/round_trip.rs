//! Tests for the behavior of restored machines.

use super::board::{Board, CPUS, ITS, config};
use doorbell_test_support::guest::{mapc, mapd, mapti, movall, take_dirty, unmapc};
use gic_arch::gicd::Irouter;
use gic_arch::{gicd, gicr, icc};
use msi_types::{Cpu, Delivery, Level, Line, SetLine};
use vgic::its::ItsConfig;
use vgic::saved_state::{EventState, SavedState};
use vgic::{RedistributorRegion, Sleep, VgicConfig};

/// Creates a machine whose guest and devices have set up every part of a saved state.
pub(crate) fn busy() -> Board {
    let mut board = Board::running();
    let commands = [
        mapd(5, 3, 0x4010_0000),
        mapd(0x1234, 12, 0x4010_1000),
        mapti(5, 0, 8192, 0),
        mapti(5, 7, 8193, 1),
        mapti(0x1234, 40, 8194, 2),
        mapti(0x1234, 4000, 8195, 2),
        mapc(9, 1),
        mapti(0x1234, 0, 8200, 9),
        mapti(5, 1, 8210, 0),
    ];
    board.run(commands);
    for (device, event) in [(5, 7), (0x1234, 40), (0x1234, 0), (5, 1)] {
        assert_eq!(board.send(device, event), Delivery::Pending);
    }
    board.run([unmapc(9), movall(0, 2)]);
    board.enable_spi(40);
    board.enable_spi(41);
    for (intid, route) in [
        (40, Irouter::to(config().cpus[0].affinity)),
        (41, Irouter::new().with_any_participating(true)),
        (60, Irouter::to(config().cpus[2].affinity)),
    ] {
        board.route(intid, route);
    }
    board.enable_private(1, 27);
    board.enable_private(1, 3);
    for intid in [40, 41, 50] {
        board.raise(intid);
    }
    board.gic.set_line(Line::Ppi { cpu: Cpu::new(1), intid: 27 }, Level::High);
    board.write_gicd(gicd::SETSPI_NSR, 60);
    assert_eq!(board.acknowledge(0), 40);
    board.msr(2, icc::BPR1.encoding(), 5);
    board.msr(2, icc::CTLR.encoding(), icc::Ctlr::new().with_eoi_mode(true).into_bits());
    board
}

#[test]
fn a_restored_machine_saves_an_identical_state() {
    let mut board = busy();
    let saved = board.save();
    let mut moved = board.moved();
    assert_eq!(moved.save(), saved);
}

#[test]
fn saving_changes_nothing() {
    let (mut untouched, mut board) = (busy(), busy());
    take_dirty(&board.ram.0);

    let saved = board.save();

    assert_eq!(board.save(), saved);
    assert!(!take_dirty(&board.ram.0));
    for cpu in 0..usize::from(CPUS) {
        assert_eq!(board.handle_all(cpu), untouched.handle_all(cpu));
    }
}

#[test]
fn a_sleeping_redistributor_stays_asleep_across_a_move() {
    let awake = || Board::new(config().with_awake_redistributors(true));
    let mut board = awake();
    board.write_gicr(1, gicr::WAKER, gicr::Waker::new().with_processor_sleep(true));
    let saved = board.save();
    assert_eq!([0, 1, 2].map(|cpu| saved.cpus[cpu].redistributor.waker != 0), [false, false, true]);

    let mut other = awake();
    other.restore(&saved);
    assert_eq!(other.save(), saved);
}

#[test]
fn a_reset_machine_saves_no_interrupts() {
    let mut board = Board::new(VgicConfig::new(1).with_lpi_id_bits(Some(20)));
    let saved = board.save();
    assert!(
        saved.distributor.interrupts.is_empty()
            && saved.cpus[0].redistributor.interrupts.is_empty()
    );
    assert!(serde_json::to_string(&saved).unwrap().len() < 1000);
}

#[test]
fn the_order_of_vcpus_and_itses_is_irrelevant() {
    let second = ItsConfig::new(0x0c00_0000).with_device_id_bits(8);
    let frame = |number| RedistributorRegion::new(0x0a00_0000 + number * gicr::STRIDE_V3, 1);
    let mut first = config().with_redistributors((0..3).map(frame).collect());
    first.its.push(second);
    let mut board = Board::new(first.clone());
    board.start();
    board.run([mapd(5, 3, 0x4010_0000), mapti(5, 0, 8192, 1)]);
    board.send(5, 0);
    board.enable_private(1, 27);
    let mut reversed = first;
    reversed.cpus.reverse();
    reversed.redistributors.reverse();
    reversed.its.reverse();

    let mut other = Board::over(reversed, board.ram.clone());
    other.restore(&board.save());

    assert_eq!(other.save(), board.save());
    assert_eq!(other.handle_all(1), [8192], "the CPU in the middle is the same in both orders");
    assert_eq!(other.gic.config().its[1].base, ITS);
}

#[test]
fn cached_configurations_are_kept() {
    let mut board = Board::running();
    board.run([mapd(5, 3, 0x4010_0000), mapti(5, 0, 8192, 0), mapti(5, 1, 8193, 0)]);
    board.configure(8192, false, 0);
    board.configure(8193, false, 0);
    let mut saved = board.save();
    let events: &mut [EventState] = &mut saved.its[0].devices[0].events;
    events[1].configuration = None;
    let mut other = Board::over(config(), board.ram.clone());
    other.restore(&saved);

    other.send(5, 0);
    other.send(5, 1);

    assert_eq!(other.handle_all(0), [8192], "8193 is disabled in memory");
}

#[test]
fn a_vcpu_that_sleeps_is_kicked_by_the_restore() {
    let mut saved_one = Board::running();
    saved_one.run([mapd(5, 3, 0x4010_0000), mapti(5, 0, 8192, 1)]);
    saved_one.send(5, 0);
    let saved = saved_one.save();
    let mut board = Board::over(config(), saved_one.ram.clone());
    assert_eq!(board.vcpus[1].prepare_to_sleep(), Sleep::Ready);

    board.restore(&saved);

    assert_eq!(board.kicks.of(1), 1);
    board.vcpus[1].returned();
    assert!(board.vcpus[1].irq_pending());
}

#[test]
fn a_pending_one_of_n_interrupt_is_delivered_after_restore() {
    let mut board = Board::running();
    board.enable_spi(41);
    board.route_to_any(41);
    for cpu in 0..usize::from(CPUS) {
        board.msr(cpu, icc::IGRPEN1.encoding(), 0);
    }
    board.raise(41);

    let mut moved = board.moved();
    moved.msr(2, icc::IGRPEN1.encoding(), 1);

    assert_eq!(moved.handle_all(2), [41]);
}

#[test]
fn the_chosen_cpu_of_a_one_of_n_interrupt_is_restored() {
    let mut board = Board::running();
    board.enable_spi(41);
    board.route_to_any(41);
    board.raise(41);
    assert_eq!(board.handle_all(0), [41]);
    board.raise(41);

    let mut moved = board.moved();

    assert_eq!(moved.handle_all(1), [41]);
    let mut again = moved.moved();
    again.raise(41);
    assert_eq!(again.handle_all(2), [41]);
}

#[test]
fn a_line_that_is_not_in_the_state_is_low() {
    let mut board = Board::new(config());
    let saved = board.save();
    board.raise(44);
    board.gic.set_line(Line::Ppi { cpu: Cpu::new(2), intid: 30 }, Level::High);
    assert_ne!(board.save(), saved);

    board.restore(&saved);

    assert_eq!(board.save(), saved);
}

#[test]
fn a_restored_machine_can_be_reset() {
    let mut moved = busy().moved();
    let mut fresh = Board::over(config(), moved.ram.clone());

    moved.gic.reset();
    moved.vcpus.iter_mut().for_each(vgic::Vcpu::reset);

    let lines =
        |saved: &SavedState| saved.distributor.interrupts.iter().filter(|it| it.line).count();
    let (mut saved, untouched) = (moved.save(), fresh.save());
    assert_eq!(lines(&saved), 3, "lines must keep their levels");
    saved.distributor.interrupts.clear();
    saved.cpus.iter_mut().for_each(|cpu| cpu.redistributor.interrupts.clear());
    assert_eq!(saved, untouched);
}

#[test]
fn a_restored_event_does_not_inherit_its_predecessors_vcpu() {
    let mut board = Board::running();
    board.run([mapd(5, 5, 0x4010_0000), mapc(9, 1), mapti(5, 0, 8200, 9), mapti(5, 1, 8201, 9)]);
    board.run([unmapc(9)]);
    let mut saved = board.save();
    let affinities = [1, 0].map(|cpu| Some(config().cpus[cpu].affinity));
    let places = |saved: &SavedState| {
        let events = &saved.its[0].devices[0].events;
        [0, 1].map(|event: usize| events[event].stays_at)
    };
    assert_eq!(places(&saved), [affinities[0]; 2]);
    saved.its[0].devices[0].events[1].stays_at = None;
    board.restore(&saved);
    assert_eq!(places(&board.save()), affinities);
}

/// Most of the events are alike and consecutive. They extend over several blocks of entries, and
/// beyond the redistributor's LPI tables.
#[test]
fn each_consecutive_event_keeps_its_state() {
    let mut board = Board::new(config().with_lpi_id_bits(Some(20)));
    board.start();
    let (events, uncovered, elsewhere, idle, masked) = (20..116, 68, 40, 50, 60);
    let lpi_of = |event: u32| (1 << 16) + event - uncovered;
    for event in events.start..uncovered {
        board.configure(lpi_of(event), event != masked, 0xa0);
    }
    let map = |event| mapti(5, event, lpi_of(event), if event == elsewhere { 2 } else { 1 });
    board.run([mapd(5, 7, 0x4010_0000)]);
    board.run(events.map(map));
    let mut saved = board.save();
    for state in &mut saved.its[0].devices[0].events {
        state.pending = state.event.get() != idle;
    }

    board.restore(&saved);

    assert_eq!(board.save(), saved);
    let mut handled = board.handle_all(1);
    handled.sort_unstable();
    let is_signaled = |event: &u32| ![elsewhere, idle, masked].contains(event);
    let expected = (20..uncovered).filter(is_signaled).map(|event| lpi_of(event).into());
    assert_eq!(handled, expected.collect::<Vec<u64>>());
    assert_eq!(board.handle_all(2), [u64::from(lpi_of(elsewhere))]);
}
