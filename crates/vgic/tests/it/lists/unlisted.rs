//! Tests for interrupts that the guest ends while they are in no list register. The hardware only
//! counts the EOIs of these interrupts (`ICH_HCR_EL2.EOIcount`).

use doorbell_test_support::guest::{Field, Hardware, Machine, vtr};
use gic_arch::gicd;
use msi_types::{Line, SetLine};
use vgic::{ListRegisterVcpu, VgicConfig};

const FIRST: u32 = 40;
/// Priorities of the SPIs. The guest acknowledges the SPIs in this order, and each SPI preempts its
/// predecessor.
const PRIORITIES: [u32; 3] = [0x60, 0x40, 0x20];

/// A guest with three edge-triggered SPIs, and its vCPU on a CPU with one list register.
struct Board {
    machine: Machine,
    vcpu: ListRegisterVcpu,
}

impl Board {
    fn new() -> Self {
        let mut machine = Machine::running(VgicConfig::new(1));
        let vcpu = machine.vcpus.remove(0).with_list_registers(vtr(1, 5)).unwrap();
        let board = Self { machine, vcpu };
        for (spi, priority) in (FIRST..).zip(PRIORITIES) {
            board.machine.enable_spi(spi);
            board.machine.make_edge(spi);
            board.machine.set_field(0, Field::Priority, spi, priority);
        }
        board
    }

    /// Creates a board whose guest has acknowledged `count` SPIs, each while it was handling the
    /// previous one.
    fn nested(count: u32) -> Self {
        let mut board = Self::new();
        (FIRST..FIRST + count).for_each(|spi| board.acknowledge(spi));
        board
    }

    fn acknowledge(&mut self, spi: u32) {
        self.machine.gic.pulse(Line::Spi(spi));
        self.run(|hardware| assert_eq!(hardware.acknowledge(1), spi));
    }

    /// Runs the guest once.
    fn run(&mut self, guest: impl FnOnce(&mut Hardware)) {
        let inside = self.vcpu.enter();
        let mut hardware = Hardware::new(*inside.interface(), vtr(1, 5));
        guest(&mut hardware);
        inside.exit(&hardware.registers);
    }

    fn active(&self) -> Vec<u32> {
        let active = self.machine.read_gicd(gicd::ISACTIVER.registers().get(1).unwrap());
        (FIRST..FIRST + 3).filter(|spi| active >> (spi - 32) & 1 == 1).collect()
    }

    /// Saves the machine and returns a new machine that was restored from the saved state.
    fn moved(mut self) -> Self {
        let paused = self.vcpu.pause();
        let saved = self.machine.gic.save().unwrap();
        drop(paused);
        let mut machine = Machine::running(VgicConfig::new(1));
        let mut vcpu = machine.vcpus.remove(0).with_list_registers(vtr(1, 5)).unwrap();
        let paused = vcpu.pause();
        machine.gic.restore(&saved).unwrap();
        drop(paused);
        Self { machine, vcpu }
    }
}

#[test]
fn a_counted_eoi_ends_the_innermost_spi_despite_a_new_priority() {
    let mut board = Board::nested(3);
    board.machine.set_field(0, Field::Priority, FIRST, 0x30);
    board.run(|hardware| {
        hardware.end(1, FIRST + 2);
        hardware.end(1, FIRST + 1);
        assert_eq!(hardware.registers.hcr.eoi_count(), 1);
    });
    assert_eq!(board.active(), [FIRST]);
}

#[test]
fn a_counted_eoi_ignores_interrupts_activated_by_register() {
    let (least, more, most) = (FIRST, FIRST + 1, FIRST + 2);
    let mut board = Board::new();
    board.acknowledge(most);
    board.run(|hardware| hardware.end(1, most));
    board.machine.set_field(0, Field::Priority, most, 0x80);
    board.machine.set_bit(gicd::ISACTIVER, most);
    board.acknowledge(least);
    board.machine.set_bit(gicd::ISACTIVER, more);
    board.run(|hardware| hardware.end(1, least));
    assert_eq!(board.active(), [more, most]);
}

#[test]
fn a_counted_eoi_after_restore_ends_the_acknowledged_spi() {
    let board = Board::nested(1);
    board.machine.set_bit(gicd::ISACTIVER, FIRST + 1);
    board.machine.set_bit(gicd::ISACTIVER, FIRST + 2);
    let mut board = board.moved();
    board.run(|hardware| hardware.end(1, FIRST));
    assert_eq!(board.active(), [FIRST + 1, FIRST + 2]);
}

#[test]
fn a_counted_eoi_deactivates_despite_a_new_eoi_mode() {
    let mut board = Board::nested(2);
    board.run(|hardware| {
        hardware.end(1, FIRST + 1);
        hardware.end(1, FIRST);
        assert_eq!(hardware.registers.hcr.eoi_count(), 1);
        hardware.registers.vmcr.set_veoim(true);
    });
    assert!(board.active().is_empty());
}
