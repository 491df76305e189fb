//! Tests for `GICR_WAKER` on machines whose redistributors are awake at reset.

use doorbell_test_support::guest::{Field, Machine};
use gic_arch::{gicd, gicr, icc};
use msi_types::{Cpu, Level, Line, SetLine};
use vgic::VgicConfig;

const TIMER: u32 = 27;

fn awake() -> Machine {
    Machine::new(VgicConfig::new(2).with_awake_redistributors(true))
}

fn put_to_sleep(machine: &Machine, cpu: usize) {
    machine.write_gicr(cpu, gicr::WAKER, gicr::Waker::new().with_processor_sleep(true));
    assert_eq!(machine.read_gicr(cpu, gicr::WAKER), 0b110);
}

/// Enables the timer and Group 1 as a kernel does that relies on firmware to set up `GICR_WAKER`.
fn enable_timer(machine: &mut Machine, cpu: usize) {
    machine.set_field(cpu, Field::Group, TIMER, 1);
    machine.enable_private(cpu, TIMER);
    machine.write_gicd(gicd::CTLR, gicd::Ctlr::new().with_enable_grp1(true));
    machine.msr(cpu, icc::PMR.encoding(), 0xff);
    machine.msr(cpu, icc::IGRPEN1.encoding(), 1);
}

#[test]
fn a_guest_that_never_writes_gicr_waker_receives_interrupts() {
    let mut machine = awake();
    enable_timer(&mut machine, 1);
    machine.gic.set_line(Line::Ppi { cpu: Cpu::new(1), intid: TIMER }, Level::High);
    assert_eq!(machine.acknowledge(1), u64::from(TIMER));
}

#[test]
fn a_system_reset_wakes_every_redistributor() {
    let machine = awake();
    (0..2).for_each(|cpu| put_to_sleep(&machine, cpu));
    machine.gic.reset();
    assert_eq!([0, 1].map(|cpu| machine.read_gicr(cpu, gicr::WAKER)), [0, 0]);
}

#[test]
fn a_vcpu_reset_wakes_its_redistributor_alone() {
    let mut machine = awake();
    (0..2).for_each(|cpu| put_to_sleep(&machine, cpu));
    machine.vcpus[1].reset();
    assert_eq!([0, 1].map(|cpu| machine.read_gicr(cpu, gicr::WAKER)), [0b110, 0]);
}

#[test]
fn resets_do_not_wake_redistributors_by_default() {
    let mut machine = Machine::new(VgicConfig::new(1));
    machine.vcpus[0].reset();
    assert_eq!(machine.read_gicr(0, gicr::WAKER), 0b110);
    machine.write_gicr(0, gicr::WAKER, gicr::Waker::new());
    machine.vcpus[0].reset();
    assert_eq!(machine.read_gicr(0, gicr::WAKER), 0);
    machine.gic.reset();
    assert_eq!(machine.read_gicr(0, gicr::WAKER), 0b110);
}
