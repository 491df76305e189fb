//! Tests that every resent LPI is reported with its reason, and that no other LPI is reported.

use super::endpoint::{Endpoint, StoreKind, attach, taken};
use super::hotplug::{come, leave, left_behind};
use crate::fake::Board;
use gic_driver::direct_lpi::{DirectLpi, Resend, ResendObserver, ResendReason};
use gic_driver::lpi::PendingLpis;
use msi_types::{Cpu, HwIrq, MsiMessage, MsiParent, Pending};
use std::sync::{Arc, Mutex};

/// Recorder of every resend, in the order in which the resends began. A resend must end before the
/// same LPI is resent again.
#[derive(Debug, Default)]
pub(crate) struct RecordedResends {
    told: Mutex<Vec<Resend>>,
    under_way: Mutex<Vec<Resend>>,
}

impl RecordedResends {
    pub(crate) fn take(&self) -> Vec<Resend> {
        assert_eq!(*self.under_way.lock().unwrap(), []);
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

impl ResendObserver for RecordedResends {
    fn resending(&self, resend: Resend) {
        self.told.lock().unwrap().push(resend);
        self.under_way.lock().unwrap().push(resend);
    }

    fn resent(&self, resend: Resend) {
        let mut under_way = self.under_way.lock().unwrap();
        let begun = under_way
            .iter()
            .position(|begun| *begun == resend)
            .expect("`resending` was called before");
        under_way.remove(begun);
    }
}

fn observed(board: &Board) -> (DirectLpi<Board>, Arc<RecordedResends>) {
    let recorder = Arc::new(RecordedResends::default());
    (board.direct_lpi().unwrap().with_observer(Arc::clone(&recorder) as _), recorder)
}

fn resend(hwirq: HwIrq, cpu: u32, reason: ResendReason) -> Resend {
    Resend { hwirq, cpu: Cpu::new(cpu), reason }
}

#[test]
fn moves_and_masks_resend_nothing() {
    let board = Board::new(2, 0);
    let (direct, recorder) = observed(&board);
    let device = left_behind(&board, &direct);
    direct.mask(device.block.first());
    direct.unmask(device.block.first());
    assert_eq!(taken(&board, 0), [device.lpi(0)]);
    assert_eq!(recorder.take(), []);
}

#[test]
fn moving_to_a_fifth_cpu_reports_an_unknowable_resend() {
    let board = Board::new(5, 0);
    let (direct, recorder) = observed(&board);
    let device = left_behind(&board, &direct);
    for to in [2, 3, 0, 2, 1] {
        device.relocate(&board, &direct, 0, to, &|| ()).unwrap();
        assert_eq!(recorder.take(), [], "the LPI moved among only four CPUs");
    }
    device.relocate(&board, &direct, 0, 4, &|| ()).unwrap();
    assert_eq!(recorder.take(), [resend(device.block.first(), 1, ResendReason::Unknowable)]);
}

#[test]
fn cpu_off_reports_a_carried_resend() {
    let board = Board::new(2, 0);
    let (direct, recorder) = observed(&board);
    let device = left_behind(&board, &direct);
    leave(&board, &direct, 0);
    assert_eq!(recorder.take(), [resend(device.block.first(), 1, ResendReason::Carried)]);
}

#[test]
fn cpu_off_without_ces_reports_an_unknowable_resend() {
    let board = Board::new(2, 0);
    board.world().rd(0).can_disable = false;
    let (direct, recorder) = observed(&board);
    let device = left_behind(&board, &direct);
    let _elsewhere = Endpoint::new(&direct, StoreKind::Masked, 1, 1).unwrap();
    leave(&board, &direct, 0);
    assert_eq!(recorder.take(), [resend(device.block.first(), 1, ResendReason::Unknowable)]);
}

#[test]
fn power_loss_reports_an_unknowable_resend() {
    let board = Board::new(2, 0);
    let (direct, recorder) = observed(&board);
    let device = Endpoint::new(&direct, StoreKind::Fixed, 1, 0).unwrap();
    direct.cpu_on(Cpu::new(0), PendingLpis::Lost).unwrap();
    assert_eq!(recorder.take(), [resend(device.block.first(), 0, ResendReason::Unknowable)]);
}

#[test]
fn a_pending_state_set_by_software_is_reported_as_a_resend() {
    let board = Board::new(2, 0);
    let (direct, recorder) = observed(&board);
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    let hwirq = device.block.first();
    direct.set_pending(hwirq, Pending::Set);
    assert_eq!(recorder.take(), [resend(hwirq, 0, ResendReason::Requested)]);
    direct.set_pending(hwirq, Pending::Clear);
    leave(&board, &direct, 0);
    direct.set_pending(hwirq, Pending::Set);
    assert_eq!(recorder.take(), [], "its target is off");
    device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    assert_eq!(recorder.take(), [resend(hwirq, 1, ResendReason::Requested)]);
}

#[test]
fn a_requested_resend_takes_precedence_over_an_unknowable_one() {
    let board = Board::new(3, 0);
    board.world().rd(0).can_disable = false;
    let (direct, recorder) = observed(&board);
    let device = left_behind(&board, &direct);
    let hwirq = device.block.first();
    // The LPI's target, CPU 1, is already off when CPU 0, at which the LPI may be pending, goes off
    // as well. The driver then has two reasons to resend the LPI.
    leave(&board, &direct, 1);
    direct.set_pending(hwirq, Pending::Set);
    leave(&board, &direct, 0);
    assert_eq!(recorder.take(), []);
    come(&board, &direct, 1);
    assert_eq!(recorder.take(), [resend(hwirq, 1, ResendReason::Requested)]);
}

#[test]
fn a_reclaimed_lpi_is_not_resent() {
    let board = Board::new(2, 0);
    let (direct, recorder) = observed(&board);
    let free = direct.gic().lpis().unwrap().available();
    let stuck = Endpoint::new(&direct, StoreKind::Fixed, 1, 0).unwrap();
    let (hwirq, lpi) = (stuck.block.first(), stuck.lpi(0));
    leave(&board, &direct, 0);
    direct.free(&attach(&direct), stuck.block);
    // The device sends a message after its LPI was freed, to the other CPU, which then goes off as
    // well.
    let address = direct.doorbell(Cpu::new(1)).unwrap();
    board.world().write_message(MsiMessage { address, data: lpi });
    leave(&board, &direct, 1);
    direct.set_pending(hwirq, Pending::Set);
    direct.set_pending(hwirq, Pending::Clear);
    come(&board, &direct, 0);
    assert_eq!(recorder.take(), []);
    assert_eq!(board.world().pending_at(lpi), [0u32; 0]);
    assert_eq!(
        direct.gic().lpis().unwrap().available(),
        free,
        "the LPI is free once CPU 0 is back"
    );
}
