//! Obstacles to a message that is sent to a redistributor.

use super::endpoint::{Endpoint, StoreKind};
use crate::fake::Board;
use msi_types::explain::{Fact, Obstacle, TargetState};
use msi_types::{Cpu, HwIrq, MsiParent, RequesterId};

#[test]
fn the_state_of_a_direct_lpi_is_explained() {
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
