//! GICv2 driver tests.

mod board;
mod explain;

use board::{Board, DISTRIBUTOR, INTERFACE, INTERFACE_OF};
use doorbell_test_support::{Outside, until_it_succeeds, with_allocations};
use gic_arch::gicc::{self, Iar, Sgir};
use gic_arch::gicd::{self, Typer};
use gic_arch::{IntId, Priority, RegisterInfo, SgiId, v2m};
use gic_driver::cpu_interface::SplitEoi;
use gic_driver::{
    Block, Coherence, Gic, GicConfig, GicCpuInterface, GicError, GicPlatform, GicV2, GicV2Config,
    Mmio, PhysicalRegion, Platform, Table, TableLayout, Wait,
};
use msi_types::{Cpu, HwIrq, MsiError, Pending, Trigger, WiredParent};
use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::ops::Range;
use std::sync::{Arc, Mutex};

fn hwirq(number: u32) -> HwIrq {
    HwIrq::new(number)
}

fn target(board: &Board, intid: u32) -> u8 {
    let word = board.state(|state| state.read(gicd::ITARGETSR.offset() + (intid & !3)));
    word.to_le_bytes()[(intid & 3) as usize]
}

#[test]
fn a_gicv3_is_recognized_by_its_typer_and_refused() {
    let board = Board::new();
    board.state(|state| state.id_bits_minus_one = 9);
    assert!(matches!(board.gic(), Err(GicError::OtherVersion { .. })));
}

#[test]
fn gicv3_driver_refuses_a_gicv2() {
    let board = Board::new();
    let config = GicConfig::new(DISTRIBUTOR, vec![], vec![gic_arch::Affinity::default()])
        .with_distributor_bytes(Some(0x1_0000));
    let refused = Gic::new(Arc::new(board), config).unwrap_err();
    let block = Block::Distributor(DISTRIBUTOR);
    assert_eq!(refused, GicError::OtherVersion { block, found: "GICv2" });
}

#[test]
fn spis_start_disabled_in_group_0_on_the_boot_cpu() {
    let board = Board::new();
    board.state(|state| {
        state.distributor.insert(gicd::ISENABLER.offset() + 4, u32::MAX);
        state.distributor.insert(gicd::IGROUPR.offset() + 8, u32::MAX);
    });
    board.gic().unwrap();
    for intid in [32, 63, 64, 127] {
        assert_eq!(target(&board, intid), 1 << INTERFACE_OF[0], "{intid}");
        assert!(!board.bit(gicd::ISENABLER, intid) && !board.bit(gicd::IGROUPR, intid));
    }
    assert_eq!(board.state(|state| state.read(gicd::CTLR.offset())), 1);
}

#[test]
fn cpu_on_enables_sgis_and_keeps_the_bypass_bits() {
    let board = Board::new();
    let bypass = gicc::Ctlr::new().with_irq_byp_dis_grp0(true).with_fiq_en(true);
    board.state(|state| state.interfaces[0].registers.insert(gicc::CTLR.offset(), bypass.into()));
    let gic = board.running();
    assert!((0..16).all(|sgi| board.bit(gicd::ISENABLER, sgi)));
    assert!((16..32).all(|ppi| !board.bit(gicd::ISENABLER, ppi)));
    board.state(|state| {
        let interface = &mut state.interfaces[0];
        assert_eq!(
            (interface.read(gicc::PMR.offset()), interface.read(gicc::CTLR.offset())),
            (0xf0, 0x41)
        );
    });
    assert_eq!([0, 1, 2].map(|cpu| gic.is_on(Cpu::new(cpu))), [true, true, false]);
    gic.cpu_off(Cpu::new(0)).unwrap();
    assert_eq!(board.state(|state| state.interfaces[0].read(gicc::CTLR.offset())), 0x40);
    assert!(!gic.is_on(Cpu::new(0)));
}

#[test]
fn a_cpu_without_a_target_bit_is_accepted_only_on_a_uniprocessor() {
    let board = Board::new();
    board.state(|state| state.has_targets = false);
    assert_eq!(board.gic().unwrap_err(), GicError::NoTarget(Cpu::new(0)));
    board.state(|state| state.cpu_number = 0);
    let gic = board.gic().unwrap();
    gic.cpu_on(Cpu::new(0)).unwrap();
    assert!(gic.is_on(Cpu::new(0)));
}

#[test]
fn an_sgi_targets_cpu_interface_numbers_and_not_cpu_numbers() {
    let board = Board::new();
    let gic = board.running();
    gic.send(SgiId::new(3).unwrap(), Cpu::new(1)).unwrap();
    gic.send_to_others(SgiId::new(5).unwrap());
    assert_eq!(
        gic.send(SgiId::new(3).unwrap(), Cpu::new(2)),
        Err(GicError::CpuOff(Cpu::new(2))),
        "CPU 2 is off"
    );
    let sent =
        board.state(|state| state.sgis.iter().map(|sgi| u32::from(*sgi)).collect::<Vec<_>>());
    assert_eq!(sent, [(1 << INTERFACE_OF[1]) << 16 | 3, 1 << 24 | 5]);
}

#[test]
fn end_writes_the_acknowledged_value() {
    let board = Board::new();
    let gic = board.running();
    let interface = gic.cpu_interface();
    let sgi = Iar::new().with_intid(3).with_cpu_id(2);
    board.state(|state| state.interfaces[0].pending = vec![Iar::new().with_intid(40), sgi]);
    assert_eq!(interface.highest_pending(), Some(IntId::new(3)));
    let first = interface.acknowledge().unwrap();
    assert_eq!((first.intid(), first.sender()), (IntId::new(3), 2));
    let second = interface.acknowledge().unwrap();
    interface.end(second);
    interface.end(first);
    assert!(interface.acknowledge().is_none() && interface.highest_pending().is_none());
    assert!(board.state(|state| state.interfaces[0].running.is_empty()));
}

#[test]
fn an_acknowledgment_is_ordered_before_the_handlers_loads() {
    let board = Board::new();
    let gic = board.running();
    board.state(|state| state.interfaces[0].pending.push(Iar::new().with_intid(3).with_cpu_id(1)));
    let taken = gic.cpu_interface().acknowledge().unwrap();
    assert!(!board.state(|state| state.interfaces[0].unordered));
    gic.cpu_interface().end(taken);
}

fn gic_of_8_kib(board: &Board) -> GicV2<&Board> {
    let config = GicV2Config::new(DISTRIBUTOR, INTERFACE, 3).with_cpu_interface_bytes(0x2000);
    GicV2::new(board, config, Cpu::new(0)).unwrap()
}

#[test]
fn split_end_needs_dir_and_eoi_mode() {
    let board = Board::new();
    let small = board.gic().unwrap();
    let refused = small.cpu_on_with::<SplitEoi>(Cpu::new(0));
    assert!(matches!(refused, Err(GicError::NoSplitEnd(_))));
    board.state(|state| state.interfaces[0].no_eoi_mode = true);
    let gic = gic_of_8_kib(&board);
    assert!(matches!(gic.cpu_on_with::<SplitEoi>(Cpu::new(0)), Err(GicError::NoSplitEnd(_))));
    assert!(!gic.is_on(Cpu::new(0)));
    assert_eq!(gic.cpu_on(Cpu::new(0)), Ok(()));
}

/// Resets all state except the GIC's identification registers.
fn lose_power(board: &Board) {
    board.state(|state| {
        state.distributor.clear();
        state.banked = Default::default();
        state.interfaces = Default::default();
    });
}

#[test]
fn resume_restores_the_gicv2_after_power_loss() {
    let board = Board::new();
    let gic = gic_of_8_kib(&board);
    gic.cpu_on_with::<SplitEoi>(Cpu::new(0)).unwrap();
    board.run_on(1);
    gic.cpu_on(Cpu::new(1)).unwrap();
    board.run_on(0);
    gic.set_trigger(hwirq(40), Trigger::Edge).unwrap();
    gic.set_target(hwirq(40), Cpu::new(1)).unwrap();
    gic.unmask(hwirq(40));
    gic.set_trigger(hwirq(41), Trigger::Edge).unwrap();
    gic.set_pending(hwirq(41), Pending::Set);
    gic.unmask(hwirq(27));
    gic.interrupt(IntId::new(27)).unwrap().set_priority(Priority::new(0x40));
    gic.cpu_interface().set_mask(Priority::new(0x80));
    board.state(|state| state.write_byte(gicd::SPENDSGIR.get(1).unwrap().offset() + 1, 2));
    let before = board.state(|state| (state.distributor.clone(), state.banked[0].clone()));

    board.run_on(1);
    gic.cpu_off(Cpu::new(1)).unwrap();
    board.run_on(0);
    let saved = gic.suspend(gic.suspend_room().unwrap(), Cpu::new(0)).unwrap();
    assert_eq!(board.state(|state| state.read(gicd::CTLR.offset())), 0);
    assert!(!gic.is_on(Cpu::new(0)));
    lose_power(&board);
    gic.resume(&saved);

    let nonzero = |words: &BTreeMap<u32, u32>| -> Vec<_> {
        words.iter().filter(|(_, value)| **value != 0).map(|(at, value)| (*at, *value)).collect()
    };
    let after = board.state(|state| (state.distributor.clone(), state.banked[0].clone()));
    assert_eq!(nonzero(&after.0), nonzero(&before.0));
    assert_eq!(nonzero(&after.1), nonzero(&before.1));
    assert!(gic.is_on(Cpu::new(0)) && !gic.is_on(Cpu::new(1)));
    board.state(|state| {
        let interface = &mut state.interfaces[0];
        assert!(interface.splits() && interface.read(gicc::CTLR.offset()) & 1 != 0);
        assert_eq!(interface.read(gicc::PMR.offset()), 0x80);
    });
    assert_eq!(
        gic.suspend(gic.suspend_room().unwrap(), Cpu::new(1)).unwrap_err(),
        GicError::UnknownCpu(Cpu::new(1))
    );
}

#[test]
fn running_priority_is_that_of_the_active_interrupt() {
    let board = Board::new();
    let gic = board.running();
    let interface = gic.cpu_interface();
    assert_eq!(interface.running_priority(), Priority::IDLE);
    board.state(|state| state.interfaces[0].pending.push(Iar::new().with_intid(40)));
    let taken = interface.acknowledge().unwrap();
    assert_eq!(interface.running_priority(), Priority::new(0xa0));
    interface.end(taken);
    assert_eq!(interface.running_priority(), Priority::IDLE);
}

#[test]
fn the_priority_mask_reads_back_as_set() {
    let board = Board::new();
    let gic = board.running();
    let interface = gic.cpu_interface();
    assert_eq!(interface.mask(), Priority::new(0xf0));
    interface.set_mask(Priority::new(0x80));
    assert_eq!(interface.mask(), Priority::new(0x80));
}

#[test]
fn an_spi_is_claimed_configured_and_released() {
    let board = Board::new();
    let gic = board.running();
    let two = NonZeroU16::new(2).unwrap();
    gic.claim(hwirq(40), two).unwrap();
    assert_eq!(gic.claim(hwirq(41), two), Err(MsiError::InUse(hwirq(41))));
    assert!(gic.claim(hwirq(127), two).is_err(), "SPI 128 is not implemented");
    gic.set_trigger(hwirq(40), Trigger::Edge).unwrap();
    gic.set_target(hwirq(40), Cpu::new(1)).unwrap();
    assert_eq!(
        (target(&board, 40), target(&board, 41)),
        (1 << INTERFACE_OF[1], 1 << INTERFACE_OF[0])
    );
    assert!(matches!(gic.set_target(hwirq(40), Cpu::new(2)), Err(MsiError::NotReachable(..))));
    gic.unmask(hwirq(40));
    assert!(gic.set_trigger(hwirq(40), Trigger::Level).is_err(), "the interrupt is enabled");
    gic.set_pending(hwirq(40), Pending::Set);
    gic.release(hwirq(40), two);
    assert!(!board.bit(gicd::ISENABLER, 40) && !gic.is_pending(hwirq(40)));
    assert_eq!(gic.claim(hwirq(40), two), Ok(()));
}

/// Handles one interrupt, in a trap loop generic over the GIC architecture and the EOI mode.
fn take(interface: &impl GicCpuInterface) -> Option<IntId> {
    let interrupt = interface.acknowledge()?;
    let intid = interrupt.intid();
    interface.deactivate(interface.end(interrupt));
    Some(intid)
}

#[test]
fn a_trap_handler_deactivates_an_interrupt_once_in_either_eoi_mode() {
    let board = Board::new();
    let gic = gic_of_8_kib(&board);
    gic.cpu_on(Cpu::new(0)).unwrap();
    let sgi = Iar::new().with_intid(3).with_cpu_id(2);
    let raise = || board.state(|state| state.interfaces[0].pending.push(sgi));
    raise();
    assert_eq!(take(&gic.cpu_interface()), Some(IntId::new(3)));
    gic.cpu_on_with::<SplitEoi>(Cpu::new(0)).unwrap();
    raise();
    assert_eq!(take(&gic.cpu_interface_with::<SplitEoi>()), Some(IntId::new(3)));
    assert_eq!(take(&gic.cpu_interface_with::<SplitEoi>()), None);
    assert_eq!(
        board.state(|state| state.interfaces[0].deactivated.clone()),
        [sgi, sgi],
        "including the sender"
    );
}

#[test]
fn a_gicv2_allocates_heap_only_for_suspend() {
    let board = Board::new();
    let config = GicV2Config::new(DISTRIBUTOR, INTERFACE, 3);
    let gic = with_allocations(0, || GicV2::new(&board, config, Cpu::new(0))).unwrap();
    with_allocations(0, || gic.cpu_on(Cpu::new(0))).unwrap();
    let (room, failures) = until_it_succeeds(
        || gic.suspend_room(),
        |error| {
            assert!(matches!(error, GicError::NoMemory(_)), "{error}");
            assert_eq!(
                gic.send(SgiId::new(1).unwrap(), Cpu::new(0)),
                Ok(()),
                "the CPU is still on"
            );
        },
    );
    assert_eq!(failures, 1);
    let saved = with_allocations(0, || gic.suspend(room, Cpu::new(0))).unwrap();
    with_allocations(0, || gic.resume(&saved));
    assert_eq!(gic.send(SgiId::new(1).unwrap(), Cpu::new(0)), Ok(()));
}
