//! Tests for resending events after a redistributor lost its pending LPIs.

use super::setup::{Setup, lpi};
use crate::fake::Hardware;
use gic_arch::its::Command;
use gic_driver::ItsError;
use msi_types::Cpu;

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
