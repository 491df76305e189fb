//! CPU hotplug tests.

use super::endpoint::{Endpoint, StoreKind, attach, taken};
use crate::fake::{Board, run_on};
use gic_driver::direct_lpi::{CpuOff, CpuOn, DirectLpi};
use gic_driver::lpi::PendingLpis;
use msi_types::{Cpu, HwIrq, MsiError, MsiParent, Pending};

/// Takes a CPU offline, as a kernel does after it has moved the CPU's vectors.
pub(crate) fn leave(board: &Board, direct: &DirectLpi<Board>, cpu: u32) -> CpuOff {
    leave_with(board, direct, cpu, |_| ())
}

fn leave_with(
    board: &Board,
    direct: &DirectLpi<Board>,
    cpu: u32,
    stranded: impl FnMut(HwIrq),
) -> CpuOff {
    let left = direct.cpu_off(Cpu::new(cpu), stranded).unwrap();
    direct.gic().cpu_off(Cpu::new(cpu), &board.registers(Cpu::new(cpu))).unwrap();
    left
}

pub(crate) fn come(board: &Board, direct: &DirectLpi<Board>, cpu: u32) -> CpuOn {
    let cpu = Cpu::new(cpu);
    let attached = direct.gic().cpu_on(cpu, &board.registers(cpu)).unwrap().unwrap();
    direct.cpu_on(cpu, attached.pending).unwrap()
}

/// Returns a device that was moved from CPU 0 to CPU 1 with its message still pending at CPU 0.
pub(crate) fn left_behind(board: &Board, direct: &DirectLpi<Board>) -> Endpoint {
    let device = Endpoint::new(direct, StoreKind::Masked, 1, 0).unwrap();
    device.fire(board, 0);
    device.relocate(board, direct, 0, 1, &|| ()).unwrap();
    device
}

#[test]
fn cpu_off_with_ces_carries_exactly_the_pending_lpis() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = left_behind(&board, &direct);
    let idle = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    idle.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    let left = leave(&board, &direct, 0);
    assert_eq!([left.carried, left.redelivered, left.stranded], [1, 0, 0]);
    assert_eq!(taken(&board, 1), [device.lpi(0)]);
    // The driver cleared the pending table when it read it, so the LPI must not be pending when the
    // CPU returns.
    come(&board, &direct, 0);
    assert_eq!(taken(&board, 0), [0u32; 0]);
}

#[test]
fn a_cpu_whose_lpis_were_carried_is_no_longer_a_previous_target() {
    let board = Board::new(5, 0);
    let direct = board.direct_lpi().unwrap();
    let idle = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    idle.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    leave(&board, &direct, 0);
    // The driver records three previous targets, and would resend the LPI if a fourth one were
    // added.
    for to in [2, 3, 4] {
        idle.relocate(&board, &direct, 0, to, &|| ()).unwrap();
    }
    assert_eq!([1, 2, 3, 4].map(|cpu| taken(&board, cpu)), [const { Vec::<u32>::new() }; 4]);
}

#[test]
fn cpu_off_without_ces_resends_lpis_that_may_be_pending() {
    for blinding in [
        |board: &Board| board.world().rd(0).can_disable = false,
        |board: &Board| board.world().rd(0).disables = false,
    ] {
        let board = Board::new(2, 0);
        blinding(&board);
        let direct = board.direct_lpi().unwrap();
        let device = left_behind(&board, &direct);
        let idle = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
        idle.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
        let left = leave(&board, &direct, 0);
        assert_eq!([left.carried, left.redelivered, left.stranded], [0, 2, 0]);
        assert_eq!(taken(&board, 1), [device.lpi(0), idle.lpi(0)]);
        come(&board, &direct, 0);
        assert_eq!(taken(&board, 0), [0u32; 0], "cleared at the previous target");
    }
}

#[test]
fn cpu_off_resends_lpis_if_the_pending_table_is_unreadable() {
    for (observable, expected) in [(false, (0, 1)), (true, (1, 0))] {
        let board = Board::new(2, 0);
        board.world().rd(0).coherent = false;
        board.world().memory.observable = observable;
        let direct = board.direct_lpi().unwrap();
        let device = left_behind(&board, &direct);
        let left = leave(&board, &direct, 0);
        assert_eq!((left.carried, left.redelivered), expected);
        assert_eq!(taken(&board, 1), [device.lpi(0)]);
    }
}

#[test]
fn a_masked_lpi_stays_masked_when_cpu_off_carries_it() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = left_behind(&board, &direct);
    direct.mask(device.block.first());
    leave(&board, &direct, 0);
    assert_eq!(taken(&board, 1), [0u32; 0]);
    direct.unmask(device.block.first());
    assert_eq!(taken(&board, 1), [device.lpi(0)]);
}

#[test]
fn lpis_that_cannot_move_stay_pending_until_cpu_on() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let stuck = Endpoint::new(&direct, StoreKind::Fixed, 1, 0).unwrap();
    let moved = left_behind(&board, &direct);
    let mut stranded = Vec::new();
    let left = leave_with(&board, &direct, 0, |hwirq| stranded.push(hwirq));
    assert_eq!([left.carried, left.redelivered, left.stranded], [0, 1, 1]);
    assert_eq!(stranded, [stuck.block.first()]);
    assert_eq!(taken(&board, 1), [moved.lpi(0)]);
    stuck.fire(&board, 0);
    come(&board, &direct, 0);
    assert_eq!(taken(&board, 0), [stuck.lpi(0)]);
}

#[test]
fn a_pending_state_set_while_offline_is_delivered_at_cpu_on() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let stuck = Endpoint::new(&direct, StoreKind::Fixed, 1, 0).unwrap();
    let cleared = Endpoint::new(&direct, StoreKind::Fixed, 1, 0).unwrap();
    leave(&board, &direct, 0);
    direct.set_pending(stuck.block.first(), Pending::Set);
    direct.set_pending(cleared.block.first(), Pending::Set);
    direct.set_pending(cleared.block.first(), Pending::Clear);
    come(&board, &direct, 0);
    assert_eq!(taken(&board, 0), [stuck.lpi(0)]);
}

#[test]
fn a_pending_state_set_while_offline_follows_the_moved_lpi() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    leave(&board, &direct, 0);
    direct.set_pending(device.block.first(), Pending::Set);
    device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    assert_eq!(taken(&board, 1), [device.lpi(0)]);
}

#[test]
fn masking_an_lpi_of_an_offline_cpu_applies_after_cpu_on() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let stuck = Endpoint::new(&direct, StoreKind::Fixed, 1, 0).unwrap();
    leave(&board, &direct, 0);
    direct.mask(stuck.block.first());
    stuck.fire(&board, 0);
    come(&board, &direct, 0);
    assert_eq!(taken(&board, 0), [0u32; 0]);
    direct.unmask(stuck.block.first());
    assert_eq!(taken(&board, 0), [stuck.lpi(0)]);
}

#[test]
fn lpis_lost_with_power_are_resent() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let stuck = Endpoint::new(&direct, StoreKind::Fixed, 1, 0).unwrap();
    let _elsewhere = Endpoint::new(&direct, StoreKind::Fixed, 1, 1).unwrap();
    assert_eq!(direct.cpu_on(Cpu::new(0), PendingLpis::Lost).unwrap().redelivered, 1);
    assert_eq!((taken(&board, 0), taken(&board, 1)), (vec![stuck.lpi(0)], vec![]));
}

#[test]
fn a_freed_lpi_is_not_reused_until_cpu_on() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let free = direct.gic().lpis().unwrap().available();
    let stuck = Endpoint::new(&direct, StoreKind::Fixed, 1, 0).unwrap();
    let lpi = stuck.lpi(0);
    leave(&board, &direct, 0);
    stuck.fire(&board, 0);
    direct.free(&attach(&direct), stuck.block);
    let next = Endpoint::new(&direct, StoreKind::Masked, 1, 1).unwrap();
    assert_ne!(next.lpi(0), lpi);
    come(&board, &direct, 0);
    assert_eq!((taken(&board, 0), direct.gic().lpis().unwrap().available()), (vec![], free - 1));
    assert_eq!(Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap().lpi(0), lpi);
    assert_eq!(taken(&board, 0), [0u32; 0]);
}

/// Frees an endpoint and has its device send one more message. Returns the LPI.
fn give_back_and_fire(board: &Board, direct: &DirectLpi<Board>, endpoint: Endpoint) -> u32 {
    let (lpi, message) = (endpoint.lpi(0), direct.compose(&endpoint.block, 0).unwrap());
    direct.free(&attach(direct), endpoint.block);
    board.world().write_message(message);
    lpi
}

#[test]
fn a_late_message_does_not_reach_the_next_owner_of_the_lpi() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    for next_cpu in [0, 1] {
        let last = Endpoint::new(&direct, StoreKind::Masked, 1, 1).unwrap();
        last.relocate(&board, &direct, 0, 0, &|| ()).unwrap();
        let lpi = give_back_and_fire(&board, &direct, last);
        assert_eq!(board.world().pending_at(lpi), [0], "the device sent a message");
        let next = Endpoint::new(&direct, StoreKind::Masked, 1, next_cpu).unwrap();
        assert_eq!(next.lpi(0), lpi);
        assert_eq!((taken(&board, 0), taken(&board, 1)), (vec![], vec![]));
        next.fire(&board, 0);
        assert_eq!(taken(&board, next_cpu), [lpi], "the new owner's message is delivered");
        direct.free(&attach(&direct), next.block);
    }
}

#[test]
fn moves_and_allocations_to_an_offline_cpu_are_refused() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 1).unwrap();
    leave(&board, &direct, 0);
    let refused = device.relocate(&board, &direct, 0, 0, &|| ()).unwrap_err();
    assert!(matches!(refused, MsiError::NotReachable(..)));
    assert!(matches!(
        Endpoint::new(&direct, StoreKind::Masked, 1, 0),
        Err(MsiError::NotReachable(..))
    ));
    assert!(
        matches!(direct.cpu_off(Cpu::new(0), |_| ()), Err(MsiError::NotReachable(..))),
        "the CPU is already off"
    );
    assert!(matches!(
        direct.cpu_on(Cpu::new(0), PendingLpis::Kept),
        Err(MsiError::NotReachable(..))
    ));
}

#[test]
fn cpu_on_invalidates_old_configurations() {
    let board = Board::new(2, 0);
    // LPIs stay enabled at the CPU's redistributor while the CPU is off, and all configurations
    // stay cached.
    board.world().rd(0).can_disable = false;
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    leave(&board, &direct, 0);
    direct.mask(device.block.first());
    come(&board, &direct, 0);
    let lpi = device.lpi(0);
    assert_eq!(board.world().rd(0).config_of(lpi).unwrap() & 1, 0);
}

#[test]
fn suspend_and_resume_keep_pending_lpis() {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    run_on(0);
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    device.fire(&board, 0);
    let registers = board.registers(Cpu::new(0));
    let saved = direct
        .gic()
        .suspend(direct.gic().suspend_room().unwrap(), Cpu::new(0), &registers)
        .unwrap();
    let resumed = direct.gic().resume(&saved, &registers).unwrap();
    direct.cpu_on(Cpu::new(0), resumed.lpis).unwrap();
    assert_eq!(taken(&board, 0), [device.lpi(0)]);
}

#[test]
fn cpu_on_resends_no_lpi_if_the_pending_table_is_unreadable() {
    let board = Board::new(2, 0);
    board.world().rd(0).coherent = false;
    let direct = board.direct_lpi().unwrap();
    let device = left_behind(&board, &direct);
    let left = leave(&board, &direct, 0);
    assert_eq!((left.redelivered, taken(&board, 1)), (1, vec![device.lpi(0)]));
    let on = come(&board, &direct, 0);
    assert_eq!((on.redelivered, taken(&board, 0)), (0, vec![]));
}

#[test]
fn an_unreadable_pending_table_gives_the_next_owner_no_message() {
    let board = Board::new(2, 0);
    board.world().rd(0).coherent = false;
    let direct = board.direct_lpi().unwrap();
    let device = left_behind(&board, &direct);
    leave(&board, &direct, 0);
    let old = device.lpi(0);
    assert_eq!(taken(&board, 1), [old]);
    direct.free(&attach(&direct), device.block);
    let new = Endpoint::new(&direct, StoreKind::Masked, 1, 1).unwrap();
    assert_eq!(new.lpi(0), old);
    come(&board, &direct, 0);
    assert_eq!((taken(&board, 0), taken(&board, 1)), (vec![], vec![]));
}

#[test]
fn lpis_lost_while_offline_are_resent_at_cpu_on() {
    for suspends in [false, true] {
        let board = Board::new(2, 0);
        let direct = board.direct_lpi().unwrap();
        let stuck = Endpoint::new(&direct, StoreKind::Fixed, 1, 0).unwrap();
        leave(&board, &direct, 0);
        stuck.fire(&board, 0);
        board.world().rd(0).lose_power();
        if suspends {
            run_on(1);
            let registers = board.registers(Cpu::new(1));
            let saved = direct
                .gic()
                .suspend(direct.gic().suspend_room().unwrap(), Cpu::new(1), &registers)
                .unwrap();
            direct.gic().resume(&saved, &registers).unwrap();
        }
        assert_eq!(come(&board, &direct, 0).redelivered, 1, "{suspends}");
        assert_eq!(taken(&board, 0), [stuck.lpi(0)]);
    }
}

#[test]
fn an_lpi_lost_at_a_previous_target_is_resent() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    leave(&board, &direct, 0);
    device.fire(&board, 0);
    device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    board.world().rd(0).lose_power();
    assert_eq!(come(&board, &direct, 0).redelivered, 1);
    assert_eq!((taken(&board, 0), taken(&board, 1)), (vec![], vec![device.lpi(0)]));
}

#[test]
fn an_lpi_pending_at_an_offline_cpu_is_resent_once() {
    let board = Board::new(5, 0);
    board.world().rd(0).can_disable = false;
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    leave(&board, &direct, 0);
    device.fire(&board, 0);
    for to in 1..5 {
        device.relocate(&board, &direct, 0, to, &|| ()).unwrap();
    }
    assert_eq!(taken(&board, 3), [device.lpi(0)], "the target that it moved away from");
    come(&board, &direct, 0);
    assert_eq!((taken(&board, 0), taken(&board, 4)), (vec![], vec![]));
}

#[test]
fn late_message_at_an_offline_cpu_reaches_no_later_owner() {
    let board = Board::new(2, 0);
    // Without `GICR_CTLR.CES`, LPIs stay enabled at an offline CPU's redistributor, and pending
    // LPIs stay pending there.
    board.world().rd(0).can_disable = false;
    let direct = board.direct_lpi().unwrap();
    let last = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    let lpi = give_back_and_fire(&board, &direct, last);
    leave(&board, &direct, 0);
    for _ in 0..2 {
        let next = Endpoint::new(&direct, StoreKind::Masked, 1, 1).unwrap();
        assert_eq!((next.lpi(0), board.world().pending_at(lpi)), (lpi, vec![0]));
        direct.free(&attach(&direct), next.block);
    }
    let third = Endpoint::new(&direct, StoreKind::Masked, 1, 1).unwrap();
    come(&board, &direct, 0);
    assert_eq!((third.lpi(0), taken(&board, 0), taken(&board, 1)), (lpi, vec![], vec![]));
}

#[test]
fn pending_lpis_of_a_previous_kernel_are_cleared() {
    for late in [None, Some(0), Some(1)] {
        let board = Board::new(3, 0);
        (0..3).for_each(|cpu| {
            board.world().rd(cpu).can_disable = false;
            board.world().rd(cpu).disables = false;
        });
        let old = board.direct_lpi().unwrap();
        let device = left_behind(&board, &old);
        device.fire(&board, 0);
        assert_eq!(board.world().pending_at(device.lpi(0)), [0, 1]);
        // A new kernel is started by kexec, and may turn on some CPUs only later.
        let gic = board.gic();
        let on = |cpu: &Cpu| late != Some(cpu.get());
        for cpu in gic.cpus().filter(on) {
            gic.cpu_on(cpu, &board.registers(cpu)).unwrap();
        }
        assert!(gic.lpis().unwrap().were_adopted());
        let direct = DirectLpi::new(gic).unwrap();
        let new = Endpoint::new(&direct, StoreKind::Masked, 1, 2).unwrap();
        assert_eq!(new.lpi(0), device.lpi(0));
        if let Some(cpu) = late {
            come(&board, &direct, cpu);
        }
        assert_eq!(
            [0, 1, 2].map(|cpu| taken(&board, cpu)),
            [const { Vec::<u32>::new() }; 3],
            "{late:?}"
        );
        new.fire(&board, 0);
        assert_eq!(taken(&board, 2), [new.lpi(0)]);
    }
}
