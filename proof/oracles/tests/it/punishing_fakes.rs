//! Runs the drivers against fakes that behave like hardware where plain memory would be forgiving:
//! registers are set and cleared by writing ones, effects are delayed (`RWP`, `ChildrenAsleep`,
//! `CREADR`), and the command queue wraps.
//!
//! The fakes don't use `gic-arch`; their offsets and bits are typed from the manual.

mod board;
mod distributor;
mod its;
mod redistributor;

use board::{Board, CpuRegisters};
use gic_arch::{Affinity, IntId};
use gic_driver::its::IdMap;
use gic_driver::{
    Gic, GicConfig, Its, ItsConfig, ItsMsiParent, PhysicalRegion, RedistributorRegion,
};
use msi_types::{BlockRequest, Cpu, Fit, MoveOutcome, MsiParent, Pending, RequesterId, Rewrite};
use std::num::NonZeroU16;
use std::sync::Arc;

fn gic(board: &Board) -> Arc<Gic<Board>> {
    let region =
        RedistributorRegion::new(PhysicalRegion { base: board::REDISTRIBUTORS, bytes: 0x4_0000 });
    let cpus = vec![Affinity::new(0, 0, 0, 0), Affinity::new(0, 0, 0, 1)];
    let gic =
        Gic::new(Arc::new(board.clone()), GicConfig::new(board::DISTRIBUTOR, vec![region], cpus))
            .unwrap();
    for cpu in [0, 1] {
        gic.cpu_on(Cpu::new(cpu), &CpuRegisters::default()).unwrap();
    }
    Arc::new(gic)
}

fn its(gic: &Arc<Gic<Board>>) -> Arc<Its<Board>> {
    let config = ItsConfig::new(board::ITS, 2).with_queue_bytes(0x1000);
    let its = Its::new(gic.clone(), &config).unwrap();
    for cpu in [0, 1] {
        its.cpu_on(Cpu::new(cpu)).unwrap();
    }
    Arc::new(its)
}

fn request(count: u16, cpu: u32) -> BlockRequest {
    BlockRequest::new(NonZeroU16::new(count).unwrap(), Fit::new(Rewrite::Masked), Cpu::new(cpu))
}

#[test]
fn enabling_an_interrupt_does_not_change_its_neighbors() {
    let board = Board::new();
    let gic = gic(&board);
    for number in [40, 41, 43] {
        gic.distributor().interrupt(IntId::new(number)).unwrap().enable();
    }
    gic.distributor().interrupt(IntId::new(41)).unwrap().disable(&board).unwrap();
    assert_eq!(board.distributor().forwarded(), vec![40, 43]);
}

#[test]
fn disabling_an_interrupt_waits_until_rwp_clears() {
    let board = Board::new();
    let gic = gic(&board);
    let interrupt = gic.distributor().interrupt(IntId::new(77)).unwrap();
    interrupt.enable();
    for patience in [0, 1, 7, 30] {
        board.distributor().write_takes = patience;
        interrupt.disable(&board).unwrap();
        // The fake distributor keeps forwarding the SPI until RWP has been read as 0.
        assert_eq!(board.distributor().forwarded(), Vec::<u32>::new());
        interrupt.enable();
    }
}

#[test]
fn a_stuck_rwp_bit_is_reported() {
    let board = Board::new();
    let gic = gic(&board);
    let interrupt = gic.distributor().interrupt(IntId::new(50)).unwrap();
    interrupt.enable();
    board.distributor().write_takes = u32::MAX;
    let error = interrupt.disable(&board).unwrap_err();
    assert!(error.to_string().contains("RWP"), "{error}");
}

#[test]
fn changing_pending_does_not_affect_other_interrupts() {
    let board = Board::new();
    let gic = gic(&board);
    for number in [64, 65, 66] {
        gic.distributor().interrupt(IntId::new(number)).unwrap().set_pending(Pending::Set);
    }
    gic.distributor().interrupt(IntId::new(65)).unwrap().set_pending(Pending::Clear);
    assert_eq!(board.distributor().pending(), vec![64, 66]);
}

#[test]
fn redistributors_are_woken_before_any_other_access() {
    let board = Board::new();
    // While ChildrenAsleep is set, the fake redistributor panics on any other access.
    drop(gic(&board));
    assert!(board.redistributors().iter().all(redistributor::Redistributor::awake));
}

#[test]
fn commands_execute_once_although_creadr_lags() {
    for lag in [0, 1, 3, 17] {
        let board = Board::new();
        let gic = gic(&board);
        board.its().lag = lag;
        let its = its(&gic);
        let parent = ItsMsiParent::new(its, IdMap::identity());
        let device = parent.attach(RequesterId::new(0x42), 32).unwrap();
        let block = parent.allocate(&device, &request(32, 1)).unwrap();
        for index in 0..32 {
            let message = parent.compose(&block, index).unwrap();
            let target = board.its().translate(0x42, message.data);
            assert_eq!(
                target,
                Some((block.hwirq(index).unwrap().get(), 1)),
                "lag {lag}, event {index}"
            );
        }
        parent.free(&device, block);
        assert_eq!(board.its().events(), 0);
        parent.detach(device);
        assert_eq!(board.its().devices(), 0);
    }
}

#[test]
fn the_command_queue_wraps_without_overrunning() {
    let board = Board::new();
    let gic = gic(&board);
    board.its().lag = 2;
    let its = its(&gic);
    let parent = ItsMsiParent::new(its, IdMap::identity());
    let device = parent.attach(RequesterId::new(7), 200).unwrap();
    for round in 0..10 {
        let block = parent.allocate(&device, &request(200, 0)).unwrap();
        for index in 0..200 {
            let moved = parent.begin_move(&block, index, Cpu::new(1)).unwrap();
            parent.end_move(moved, MoveOutcome::Written).unwrap();
        }
        let last = parent.compose(&block, 199).unwrap();
        assert_eq!(
            board.its().translate(7, last.data).map(|(_, target)| target),
            Some(1),
            "round {round}"
        );
        parent.free(&device, block);
    }
    parent.detach(device);
    // The queue has 128 slots, so each round posts more than three full queues.
    assert!(board.its().wraps > 30, "{} wraps", board.its().wraps);
}

#[test]
fn the_error_of_a_hung_queue_names_the_unfinished_command() {
    let board = Board::new();
    let gic = gic(&board);
    let its = its(&gic);
    let parent = ItsMsiParent::new(its, IdMap::identity());
    board.its().hangs = true;
    let device = parent.attach(RequesterId::new(0x33), 4);
    let error = match device {
        Ok(device) => parent.allocate(&device, &request(4, 0)).unwrap_err(),
        Err(error) => error,
    };
    let text = error.to_string();
    assert!(
        text.contains("its@8080000") && text.contains("MAPD") && text.contains("0x33"),
        "{text}"
    );
}
