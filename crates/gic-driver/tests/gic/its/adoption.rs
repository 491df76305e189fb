//! Tests for a kernel that was started by kexec, in which redistributors keep using the previous
//! kernel's LPI tables.

use super::setup::{Setup, config, gic, lpi, request};
use crate::fake::Board;
use crate::fake::Hardware;
use gic_driver::lpi::AdoptionRefused;
use gic_driver::{GicError, Its, ItsError, LpiError};
use msi_types::{Cpu, Initially};

/// Returns a board on which the `left` CPUs have LPIs permanently enabled and the `on` CPUs are
/// online.
fn after_kexec(hardware: Hardware, left: &[usize], on: &[u32]) -> Setup {
    let board = Board::with_its(vec![hardware], 4);
    board.world().leave_lpis(left);
    let setup = Setup::on(board, &config(0));
    assert!(setup.its.lpis().were_adopted());
    for cpu in on {
        setup.bring_up(*cpu);
    }
    setup
}

fn turn_on(setup: &Setup, cpu: u32) -> Result<(), GicError> {
    let cpu = Cpu::new(cpu);
    setup.gic.cpu_on(cpu, &setup.board.registers(cpu)).map(drop)
}

fn nobody_takes_anything(setup: &Setup) {
    for cpu in 0..4 {
        assert_eq!(setup.take(cpu), [0u32; 0], "CPU {cpu}");
    }
}

#[test]
fn the_first_owner_receives_no_stale_lpi() {
    for left in [&[0, 1, 2, 3][..], &[0, 2], &[1], &[3, 1]] {
        for (count, cpu) in [(1, 1), (3, 0), (40, 3)] {
            let setup = after_kexec(Hardware::default(), left, &[0, 1, 2, 3]);
            let device = setup.attach(5, 64);
            let block = setup.map(&device, count, cpu);
            nobody_takes_anything(&setup);
            for index in 0..count {
                assert_eq!(
                    setup.send(lpi(&block, index)),
                    Some((cpu as usize, lpi(&block, index).get()))
                );
            }
            assert_eq!(setup.take(cpu as usize).len(), usize::from(count));
            nobody_takes_anything(&setup);
        }
    }
}

#[test]
fn an_lpi_allocated_masked_is_cleared_of_stale_state() {
    let setup = after_kexec(Hardware::default(), &[0, 1, 2, 3], &[0, 1, 2, 3]);
    let device = setup.attach(5, 2);
    let masked = request(1, 2).with_initially(Initially::Masked);
    let block = setup.its.map_events(&device, masked).unwrap();
    setup.send(lpi(&block, 0));
    nobody_takes_anything(&setup);
    setup.its.unmask(lpi(&block, 0)).unwrap();
    assert_eq!(setup.take(2), [lpi(&block, 0).get()]);
    for cpu in [3, 0, 1, 2] {
        setup.its.move_event(lpi(&block, 0), Cpu::new(cpu)).unwrap();
        nobody_takes_anything(&setup);
    }
}

#[test]
fn mapping_an_adopted_lpi_again_issues_no_clear_commands() {
    let setup = after_kexec(Hardware::default(), &[0, 1], &[0, 1, 2, 3]);
    let device = setup.attach(5, 2);
    let names = |cpu| {
        let mut block = None;
        let traffic = setup.traffic(|| block = Some(setup.map(&device, 1, cpu)));
        setup.its.unmap_events(&device, block.unwrap());
        traffic.executed.iter().map(|command| command.opcode().name()).collect::<Vec<_>>()
    };
    let first = ["MAPD", "MAPTI", "CLEAR", "MOVI", "CLEAR", "MOVI", "INV", "SYNC", "SYNC", "SYNC"];
    assert_eq!(names(2), [&first[..], &["INV", "SYNC"]].concat());
    assert_eq!(names(2), ["MAPTI", "INV", "SYNC"]);
}

#[test]
fn a_late_cpu_with_stale_lpis_is_refused_once_lpis_are_in_use() {
    let setup = after_kexec(Hardware::default(), &[0, 3], &[0, 1]);
    let device = setup.attach(5, 2);
    let block = setup.map(&device, 2, 1);
    let refused = turn_on(&setup, 3).unwrap_err();
    let in_use = AdoptionRefused::LpisInUse;
    assert!(
        matches!(
            refused,
            GicError::Lpi(LpiError::AlreadyEnabled { reason, .. }) if reason == in_use
        ),
        "{refused}"
    );
    assert!(refused.to_string().contains("turn on all CPUs before devices allocate"), "{refused}");
    assert!(matches!(setup.cpu_on(3), Err(ItsError::NotReachable(..))));
    turn_on(&setup, 2).unwrap();

    setup.its.unmap_events(&device, block);
    setup.bring_up(3);
    let block = setup.map(&device, 2, 3);
    nobody_takes_anything(&setup);
    assert_eq!(setup.send(lpi(&block, 1)), Some((3, lpi(&block, 1).get())));
}

#[test]
fn mapping_fails_if_a_stale_redistributor_is_unreachable() {
    let setup = after_kexec(Hardware::default(), &[0, 1], &[0, 1, 2]);
    let device = setup.attach(5, 3);
    let used = setup.map(&device, 1, 2);
    setup.its.cpu_off(Cpu::new(1), Cpu::new(0)).unwrap();
    let free = setup.its.lpis().available();
    for _ in 0..3 {
        let refused = setup.its.map_events(&device, request(1, 2)).unwrap_err();
        assert!(matches!(refused, ItsError::Fault(_)), "{refused}");
    }
    assert_eq!(setup.its.lpis().available(), free);
    // An LPI that has had an owner before is not pending at any redistributor.
    setup.its.unmap_events(&device, used);
    let again = setup.map(&device, 1, 2);
    setup.cpu_on(1).unwrap();
    let _others = setup.map(&device, 2, 1);
    nobody_takes_anything(&setup);
    assert!(setup.send(lpi(&again, 0)).is_some());
}

#[test]
fn a_redistributor_that_lost_power_has_no_stale_lpis() {
    let setup = after_kexec(Hardware::default(), &[0, 1], &[0, 1, 2]);
    setup.its.cpu_off(Cpu::new(1), Cpu::new(0)).unwrap();
    setup.gic.cpu_off(Cpu::new(1), &setup.board.registers(Cpu::new(1))).unwrap();
    setup.board.world().redistributors[1].lose_power();
    turn_on(&setup, 1).unwrap();
    let device = setup.attach(5, 2);
    let _block = setup.map(&device, 2, 2);
    nobody_takes_anything(&setup);
}

#[test]
fn mapping_does_not_wait_for_a_refused_redistributor() {
    let setup = after_kexec(Hardware::default(), &[0], &[0]);
    let table = setup.board.world().redistributors[0].config_table();
    let pending = 0xdead_0000;
    setup.board.world().redistributors[3].leave_enabled(table, pending, 8192..8200);
    let refused = turn_on(&setup, 3).unwrap_err();
    assert!(
        matches!(
            refused,
            GicError::Lpi(LpiError::AlreadyEnabled {
                reason: AdoptionRefused::OtherPendingTable { found, .. },
                ..
            }) if found == pending
        ),
        "{refused}"
    );
    let device = setup.attach(5, 2);
    let _block = setup.map(&device, 2, 0);
    nobody_takes_anything(&setup);
}

#[test]
fn failed_clearing_is_repeated() {
    let setup = after_kexec(Hardware::default(), &[0, 1, 2, 3], &[0, 1, 2, 3]);
    let device = setup.attach(5, 64);
    setup.board.world().set_stuck(true);
    setup.its.map_events(&device, request(60, 1)).unwrap_err();
    setup.board.world().set_stuck(false);
    nobody_takes_anything(&setup);
    for count in [60, 4] {
        let _block = setup.map(&device, count, 1);
        nobody_takes_anything(&setup);
    }
}

#[test]
fn an_lpi_cleared_by_one_its_is_clear_for_all() {
    let board = Board::with_its(vec![Hardware::default(), Hardware::default()], 4);
    board.world().leave_lpis(&[0, 1]);
    let gic = gic(&board);
    let its = [0, 1].map(|index| Its::new(gic.clone(), &config(index)).unwrap());
    for cpu in [0, 1, 2] {
        super::setup::turn_on(&gic, cpu);
        its[0].cpu_on(Cpu::new(cpu)).unwrap();
    }
    its[1].cpu_on(Cpu::new(2)).unwrap();
    let device = its[1].attach(msi_types::DeviceId::new(1), 1).unwrap();
    its[1].map_events(&device, request(1, 2)).unwrap_err();

    let first = its[0].attach(msi_types::DeviceId::new(1), 1).unwrap();
    let block = its[0].map_events(&first, request(1, 2)).unwrap();
    its[0].unmap_events(&first, block);
    let _block = its[1].map_events(&device, request(1, 2)).unwrap();
    for cpu in 0..3 {
        assert_eq!(board.world().redistributors[cpu].acknowledge(), [0u32; 0]);
    }
}
