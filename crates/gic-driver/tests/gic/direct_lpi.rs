//! Tests for direct LPIs.

mod endpoint;
mod hotplug;
mod masking;
mod messages;
mod model;
mod moves;
mod refusals;
mod resends;
mod sharing;

use crate::fake::Board;
use endpoint::{Endpoint, StoreKind, attach, fit, request};
use msi_types::explain::{Fact, Obstacle, TargetState};
use msi_types::{Cpu, HwIrq, MsiParent, RequesterId, Shape};

/// Counts the invalidations at CPU 0 while `count` vectors are allocated.
fn invalidations_for(count: u16) -> u32 {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    let device = attach(&direct);
    let before = board.world().rd(0).invalidations;
    let request = request(fit(StoreKind::Masked), count, 0).with_shape(Shape::Independent);
    let block = direct.allocate(&device, &request).unwrap();
    let count = board.world().rd(0).invalidations - before;
    direct.free(&device, block);
    count
}

#[test]
fn sixteen_or_more_lpis_are_invalidated_together() {
    assert_eq!([1, 3, 15].map(invalidations_for), [1, 3, 15]);
    assert_eq!([16, 30, 64].map(invalidations_for), [1; 3]);
}

#[test]
fn explain_reports_the_state_of_a_direct_lpi() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 1).unwrap();
    let (interrupt, cpu) = (device.block.first(), Cpu::new(1));
    let explain = |hwirq| direct.explain(hwirq, RequesterId::new(0));
    let facts = [
        Fact::Doorbell(device.message().address),
        Fact::MessageIntid(interrupt),
        Fact::Enabled(0xa0),
        Fact::Target(cpu, TargetState::Awake),
    ];
    assert!(explain(interrupt).facts().eq(facts));
    assert_eq!(explain(interrupt).obstacle(), None);
    direct.mask(interrupt);
    assert_eq!(explain(interrupt).obstacle(), Some(Obstacle::Disabled { interrupt }));
    direct.gic().cpu_off(cpu, &board.registers(cpu)).unwrap();
    assert_eq!(explain(interrupt).obstacle(), Some(Obstacle::Offline { cpu }));
    let interrupt = HwIrq::new(9000);
    assert_eq!(explain(interrupt).obstacle(), Some(Obstacle::NoSuchInterrupt { interrupt }));
}
