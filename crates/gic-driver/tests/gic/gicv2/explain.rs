//! Obstacles at a GICv2.

use super::*;
use msi_types::explain::{Explanation, Fact, Group, Obstacle, TargetState};

const CPU0: Cpu = Cpu::new(0);
const SPI: u32 = 40;

/// Returns a GICv2 with a pending SPI that is routed to CPU 0.
fn pending() -> (Board, Arc<GicV2<Board>>) {
    let board = Board::new();
    let gic = board.running();
    board.run_on(0);
    gic.claim(hwirq(SPI), NonZeroU16::MIN).unwrap();
    gic.set_target(hwirq(SPI), CPU0).unwrap();
    gic.unmask(hwirq(SPI));
    gic.set_pending(hwirq(SPI), Pending::Set);
    (board, gic)
}

fn explain_interface(gic: &GicV2<Board>) -> Explanation {
    gic.explain_interface((CPU0, None), hwirq(SPI), Priority::new(0xa0))
}

#[test]
fn explain_reports_the_state_of_an_spi() {
    let (board, gic) = pending();
    let interrupt = hwirq(SPI);
    let explain = |interrupt| gic.explain(interrupt);
    let facts = [
        Fact::Enabled(0xa0),
        Fact::LevelSensitive,
        Fact::Pending(interrupt),
        Fact::Target(CPU0, TargetState::Awake),
    ];
    assert!(explain(interrupt).facts().eq(facts));
    assert_eq!(explain(interrupt).obstacle(), None);
    board.state(|state| state.write(gicd::CTLR.offset(), 0));
    let disabled = Obstacle::GroupDisabled { group: Group::Zero, ctlr: 0 };
    assert_eq!(explain(interrupt).obstacle(), Some(disabled));
    board.state(|state| state.write_byte(gicd::ITARGETSR.offset() + SPI, 0x80));
    let missing = Obstacle::NoTarget { affinity: 0x80 };
    assert!(explain(interrupt).obstacles().eq([missing]));
    gic.mask(interrupt);
    let disabled = Obstacle::Disabled { interrupt };
    assert!(explain(interrupt).obstacles().eq([disabled, missing]));
    let interrupt = hwirq(8192);
    assert_eq!(explain(interrupt).obstacle(), Some(Obstacle::NoSuchInterrupt { interrupt }));
}

#[test]
fn sgis_and_ppis_are_private() {
    let (_, gic) = pending();
    assert!((0..32).all(|number| gic.has_private(hwirq(number))));
    for number in [32, SPI, 1019, 1020, 1023, 1056, 4096, 8192, u32::MAX] {
        assert!(!gic.has_private(hwirq(number)), "{number}");
    }
}

/// A private interrupt targets the calling CPU, so the explanation can continue at this CPU's
/// interface.
#[test]
fn explain_names_the_calling_cpu_as_a_private_interrupts_target() {
    let board = Board::new();
    let gic = board.running();
    for cpu in [Cpu::new(0), Cpu::new(1)] {
        board.run_on(cpu.get());
        gic.cpu_on(cpu).unwrap();
        gic.unmask(hwirq(27));
        gic.set_pending(hwirq(27), Pending::Set);
        let explanation = gic.explain(hwirq(27));
        assert_eq!(explanation.obstacle(), None);
        let target = Fact::Target(cpu, TargetState::Awake);
        assert!(explanation.facts().any(|fact| fact == target), "{explanation}");
    }
}

/// <https://github.com/zephyrproject-rtos/zephyr/issues/119819>: the driver uses an MPIDR as the
/// number of a target bit, so the target byte selects no CPU interface.
#[test]
fn explain_names_a_target_byte_that_selects_no_cpu() {
    let (board, gic) = pending();
    board.state(|state| state.write_byte(gicd::ITARGETSR.offset() + SPI, 0));
    assert_eq!(gic.explain(hwirq(SPI)).obstacle(), Some(Obstacle::NoTarget { affinity: 0 }));
}

#[test]
fn explain_reports_the_state_of_the_cpu_interface() {
    let (board, gic) = pending();
    let set = |offset, value| {
        board.state(|state| state.interfaces[0].registers.insert(offset, value));
    };
    assert!(explain_interface(&gic).facts().eq([Fact::WouldSignal(CPU0)]));
    let masked = gic.explain_interface((CPU0, Some(true)), hwirq(SPI), Priority::new(0xa0));
    assert_eq!(masked.obstacle(), Some(Obstacle::ExceptionsMasked { cpu: CPU0 }));
    let arrived = Iar::new().with_intid(40);
    board.state(|state| state.interfaces[0].pending.push(arrived));
    let signaled = [Fact::Pending(hwirq(SPI)), Fact::Signaled(CPU0)];
    assert!(explain_interface(&gic).facts().eq(signaled));
    board.state(|state| state.interfaces[0].running.push(arrived));
    let running = board.state(|state| state.interfaces[0].read(gicc::RPR.offset()));
    let running = running.to_le_bytes()[0];
    let active = Obstacle::PriorityNotHigher { priority: 0xa0, running, cpu: CPU0 };
    assert_eq!(explain_interface(&gic).obstacle(), Some(active));
    set(gicc::PMR.offset(), 0x80);
    let masked = Obstacle::PriorityMasked { priority: 0xa0, mask: 0x80, cpu: CPU0 };
    assert_eq!(explain_interface(&gic).obstacle(), Some(masked));
    set(gicc::CTLR.offset(), 0);
    let disabled = Obstacle::InterfaceGroupDisabled { group: Group::Zero, cpu: CPU0 };
    assert_eq!(explain_interface(&gic).obstacle(), Some(disabled));
}
