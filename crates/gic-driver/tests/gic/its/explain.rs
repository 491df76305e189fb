//! Obstacles to a message at the ITS, and the driver's `Debug` output.

use super::setup::{Setup, lpi};
use crate::fake::{Hardware, ITS};
use gic_arch::gicr::Propbaser;
use gic_arch::gits;
use gic_driver::its::IdMap;
use gic_driver::{ItsMsiParent, MmioExt, PhysicalRegion, Platform};
use msi_types::explain::{Explanation, Fact, Obstacle, TargetState};
use msi_types::{Cpu, DeviceId, EventId, HwIrq, HwIrqBlock, MsiParent, RequesterId};

const DEVICE: u32 = 5;

fn explain(setup: &Setup, block: &HwIrqBlock) -> Explanation {
    let parent = ItsMsiParent::new(setup.its.clone(), IdMap::identity());
    parent.explain(block.first(), RequesterId::new(DEVICE))
}

#[test]
fn explain_finds_no_obstacle_for_a_mapped_event() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(DEVICE, 1);
    let block = setup.map(&device, 1, 1);
    let interrupt = block.first();
    let facts = [
        Fact::Doorbell(ITS + 0x1_0040),
        Fact::Event { device: DeviceId::new(DEVICE), event: EventId::new(0), interrupt },
        Fact::Enabled(0xa0),
        Fact::Target(Cpu::new(1), TargetState::Awake),
    ];
    assert!(explain(&setup, &block).facts().eq(facts));
    assert_eq!(explain(&setup, &block).obstacle(), None);
}

#[test]
fn explain_names_an_lpi_without_an_event() {
    let setup = Setup::new(Hardware::default());
    let parent = ItsMsiParent::new(setup.its.clone(), IdMap::identity());
    let explain = |interrupt| parent.explain(interrupt, RequesterId::new(DEVICE)).obstacle();
    let interrupt = HwIrq::new(8192);
    assert_eq!(explain(interrupt), Some(Obstacle::NoEvent { interrupt }));
    // An SPI, and an LPI that the tables do not cover.
    for interrupt in [40, 0xff_ffff].map(HwIrq::new) {
        assert_eq!(explain(interrupt), Some(Obstacle::NoSuchInterrupt { interrupt }));
    }
}

#[test]
fn explain_names_unexecuted_its_commands() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(DEVICE, 1);
    let block = setup.map(&device, 1, 1);
    let frame = setup.board.map(PhysicalRegion { base: ITS, bytes: gits::SIZE }).unwrap();
    let read = frame.read(gits::CREADR).offset();
    setup.board.world().set_stuck(true);
    assert!(setup.its.invalidate(lpi(&block, 0)).is_err());
    // INV and SYNC.
    let stuck = Obstacle::CommandsQueued { read, write: read + 64 };
    assert_eq!(explain(&setup, &block).obstacle(), Some(stuck));
    // The explanation shows GITS_CREADR.Stalled, which is bit 0.
    setup.board.world().its[0].stalled = true;
    let stalled = Obstacle::CommandsQueued { read: read + 1, write: read + 64 };
    assert_eq!(explain(&setup, &block).obstacle(), Some(stalled));
    setup.board.world().its[0].stalled = false;
    setup.board.world().set_stuck(false);
    assert_eq!(explain(&setup, &block).obstacle(), None);
}

#[test]
fn explain_reports_no_obstacle_for_a_slow_its() {
    let setup = Setup::new(Hardware { pace: Some(1), pause: 3, ..Hardware::default() });
    let device = setup.attach(DEVICE, 1);
    let block = setup.map(&device, 1, 1);
    setup.board.world().patience = 0;
    assert!(setup.its.invalidate(lpi(&block, 0)).is_err(), "it takes longer");
    setup.board.world().patience = 40;
    assert_eq!(explain(&setup, &block).obstacle(), None);
}

#[test]
fn explain_names_a_configuration_table_that_ends_before_the_lpi() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(DEVICE, 1);
    let block = setup.map(&device, 1, 1);
    let base = setup.board.world().rd(1).propbaser;
    let short: Propbaser = base.with_id_bits_minus_one(12);
    setup.board.world().rd(1).propbaser = short;
    let beyond = Obstacle::BeyondTable { interrupt: block.first(), bits: 13 };
    assert_eq!(explain(&setup, &block).obstacle(), Some(beyond));
    setup.board.world().rd(1).propbaser = base;
}

#[test]
fn debug_output_fits_on_a_screen() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(DEVICE, 200);
    let _block = setup.map(&device, 200, 2);
    let text = format!("{:#?}", setup.its);
    for part in [
        "base: 0x8080000,",
        "enabled: true,",
        "collections: 4 of 4 mapped,",
        "lpis: 7992 of 8192 free,",
        "        DeviceID 0x5, EventID 7: LPI 8199 at CPU 2,\n        and 192 more,",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().count() < 24 && text.len() < 1024, "{text}");
}
