//! Tests for the sleep and kick protocol. No wake-up may be lost, and a vCPU must be kicked at most
//! once each time it prepares to sleep.

use doorbell_test_support::guest::{Field, Machine};
use gic_arch::icc::Sgi;
use gic_arch::{gicd, gicr, icc};
use msi_types::{Cpu, Level, Line, SetLine};
use vgic::{Sleep, Vgic, VgicConfig};

pub(super) const SPI: u32 = 40;

/// Creates a running machine with an edge-triggered SPI for CPU 0.
fn machine() -> Machine {
    let machine = Machine::running(VgicConfig::new(2));
    machine.make_edge(SPI);
    machine.enable_spi(SPI);
    machine
}

pub(super) fn pulse(gic: &Vgic, intid: u32) {
    gic.pulse(Line::Spi(intid));
}

#[test]
fn a_sleeping_vcpu_is_kicked_once() {
    let mut machine = machine();
    machine.enable_spi(SPI + 1);
    assert_eq!(machine.vcpus[0].prepare_to_sleep(), Sleep::Ready);

    for _ in 0..3 {
        pulse(&machine.gic, SPI);
        pulse(&machine.gic, SPI + 1);
    }

    assert_eq!((machine.kicks.of(0), machine.kicks.of(1)), (1, 0));
}

#[test]
fn a_vcpu_with_a_pending_interrupt_does_not_sleep() {
    let mut machine = machine();
    pulse(&machine.gic, SPI);
    assert_eq!(machine.vcpus[0].prepare_to_sleep(), Sleep::DontSleep);
    pulse(&machine.gic, SPI);
    assert_eq!(machine.kicks.of(0), 0);
}

#[test]
fn a_vcpu_that_returned_from_sleep_is_not_kicked() {
    let mut machine = machine();
    assert_eq!(machine.vcpus[0].prepare_to_sleep(), Sleep::Ready);
    machine.vcpus[0].returned();
    pulse(&machine.gic, SPI);
    assert_eq!(machine.kicks.of(0), 0);
}

#[test]
fn an_interrupt_after_guest_entry_kicks_the_vcpu() {
    let mut machine = machine();
    pulse(&machine.gic, SPI);
    assert!(machine.vcpus[0].enter_guest().irq);
    machine.enable_spi(SPI + 1);
    machine.raise(SPI + 1);
    assert_eq!(machine.kicks.of(0), 1);
}

#[test]
fn a_vcpu_is_kicked_while_its_guest_runs_and_not_afterwards() {
    let mut machine = machine();
    let gic = machine.gic.clone();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        machine.vcpus[0].run_guest(|inputs| {
            assert!(!inputs.any());
            pulse(&gic, SPI);
            panic!("the guest's run ends");
        })
    }));
    assert!(ended.is_err());
    assert_eq!(machine.kicks.of(0), 1);
    machine.enable_spi(SPI + 1);
    machine.raise(SPI + 1);
    assert_eq!(machine.kicks.of(0), 1);
    assert!(machine.vcpus[0].run_guest(|inputs| inputs.irq));
}

#[test]
fn making_a_pending_interrupt_deliverable_kicks_its_vcpu() {
    let ways: [fn(&mut Machine); 3] = [
        |machine| machine.enable_spi(SPI + 1),
        |machine| machine.route_to(SPI + 2, 0),
        |machine| machine.set_bit(gicd::ICACTIVER, SPI + 3),
    ];
    for make_deliverable in ways {
        let mut machine = machine();
        machine.route_to(SPI + 2, 1);
        machine.enable_spi(SPI + 2);
        machine.enable_spi(SPI + 3);
        machine.set_bit(gicd::ISACTIVER, SPI + 3);
        for spi in SPI + 1..SPI + 4 {
            machine.raise(spi);
        }
        assert_eq!(machine.vcpus[0].prepare_to_sleep(), Sleep::Ready);

        make_deliverable(&mut machine);

        assert_eq!(machine.kicks.of(0), 1);
        assert!(machine.vcpus[0].irq_pending());
    }
}

#[test]
fn enabling_a_group_with_a_pending_interrupt_kicks_the_vcpu() {
    let mut machine = machine();
    machine.write_gicd(gicd::CTLR, gicd::Ctlr::new());
    assert_eq!(machine.vcpus[0].prepare_to_sleep(), Sleep::Ready);
    pulse(&machine.gic, SPI);
    assert_eq!(machine.kicks.of(0), 0, "the group is disabled");

    machine.write_gicd(gicd::CTLR, gicd::Ctlr::from(2));

    assert_eq!(machine.kicks.of(0), 1);
}

#[test]
fn writing_gicd_ctlr_without_a_change_does_not_kick() {
    let mut machine = machine();
    let same = gicd::Ctlr::from(u32::try_from(machine.read_gicd(gicd::CTLR)).unwrap());
    assert_eq!(machine.vcpus[0].prepare_to_sleep(), Sleep::Ready);

    machine.write_gicd(gicd::CTLR, same);
    assert_eq!(machine.kicks.of(0), 0);

    machine.write_gicd(gicd::CTLR, gicd::Ctlr::new());
    assert_eq!(machine.kicks.of(0), 1, "a group was disabled");
}

#[test]
fn raising_a_masked_priority_above_the_mask_kicks() {
    let mut machine = machine();
    machine.msr(0, icc::PMR.encoding(), 0x80);
    machine.set_field(0, Field::Priority, SPI, 0xa0);
    pulse(&machine.gic, SPI);
    assert_eq!(machine.vcpus[0].prepare_to_sleep(), Sleep::Ready);

    machine.set_field(0, Field::Priority, SPI, 0x40);

    assert_eq!(machine.kicks.of(0), 1);
    assert!(machine.vcpus[0].irq_pending());
}

#[test]
fn a_one_of_n_interrupt_wakes_one_sleeper() {
    let mut machine = Machine::running(VgicConfig::new(3).with_one_of_n(true));
    machine.make_edge(SPI);
    machine.enable_spi(SPI);
    machine.route_to_any(SPI);
    for vcpu in &mut machine.vcpus {
        assert_eq!(vcpu.prepare_to_sleep(), Sleep::Ready);
    }

    pulse(&machine.gic, SPI);

    let woken: Vec<_> = (0..3).filter(|cpu| machine.kicks.of(*cpu) == 1).collect();
    let kicks: usize = (0..3).map(|cpu| machine.kicks.of(cpu)).sum();
    assert_eq!((woken.len(), kicks), (1, 1));
    assert_eq!(machine.acknowledge(woken[0]), u64::from(SPI));
}

#[test]
fn an_sgi_wakes_its_target() {
    let mut machine = machine();
    machine.enable_private(1, 3);
    assert_eq!(machine.vcpus[1].prepare_to_sleep(), Sleep::Ready);

    let target = machine.gic.config().cpus[1].affinity;
    machine.msr(0, icc::SGI1R.encoding(), Sgi::to(3, target).into_bits());

    assert_eq!(machine.kicks.of(1), 1);
    assert_eq!(machine.acknowledge(1), 3);
}

/// Powers a vCPU down: its CPU interface accepts no interrupts, and its redistributor sleeps.
fn power_down(machine: &mut Machine) -> Sleep {
    machine.msr(0, icc::IGRPEN1.encoding(), 0);
    machine.write_gicr(0, gicr::WAKER, gicr::Waker::new().with_processor_sleep(true));
    machine.vcpus[0].prepare_to_power_down()
}

#[test]
fn a_pending_spi_kicks_a_powered_down_vcpu() {
    let mut machine = machine();
    assert_eq!(power_down(&mut machine), Sleep::Ready);

    pulse(&machine.gic, SPI);

    assert_eq!(machine.kicks.of(0), 1);
    assert!(!machine.vcpus[0].irq_pending(), "no signal before the guest wakes its redistributor");
}

#[test]
fn pending_interrupts_prevent_power_down() {
    let mut machine = machine();
    pulse(&machine.gic, SPI);
    assert_eq!(power_down(&mut machine), Sleep::DontSleep);
    pulse(&machine.gic, SPI);
    assert_eq!(machine.kicks.of(0), 0);
}

#[test]
fn disabled_interrupts_allow_power_down() {
    let mut machine = machine();
    pulse(&machine.gic, SPI + 1);
    assert_eq!(power_down(&mut machine), Sleep::Ready);
    let mut machine = self::machine();
    pulse(&machine.gic, SPI);
    machine.write_gicd(gicd::CTLR, gicd::Ctlr::new());
    assert_eq!(power_down(&mut machine), Sleep::Ready);
}

#[test]
fn a_vcpu_reset_after_power_down_acknowledges_pending_spis() {
    let mut machine = machine();
    machine.msr(0, icc::CTLR.encoding(), 2);
    assert_eq!(power_down(&mut machine), Sleep::Ready);
    pulse(&machine.gic, SPI);

    machine.vcpus[0].returned();
    machine.vcpus[0].reset();

    assert_eq!(
        (machine.mrs(0, icc::PMR.encoding()), machine.mrs(0, icc::CTLR.encoding()) & 2),
        (0, 0)
    );
    assert!(!machine.vcpus[0].irq_pending());
    machine.write_gicr(0, gicr::WAKER, gicr::Waker::new());
    machine.msr(0, icc::PMR.encoding(), 0xff);
    machine.msr(0, icc::IGRPEN1.encoding(), 1);
    assert_eq!(machine.acknowledge(0), u64::from(SPI));
}

#[test]
fn a_powered_down_vcpu_is_not_kicked_for_another_vcpus_spi() {
    let mut machine = machine();
    assert_eq!(power_down(&mut machine), Sleep::Ready);
    machine.route_to(SPI, 1);
    pulse(&machine.gic, SPI);
    assert_eq!(machine.kicks.of(0), 0);
    assert_eq!(machine.acknowledge(1), u64::from(SPI));
}

#[test]
fn a_vcpu_reset_retargets_a_one_of_n_interrupt() {
    let mut machine = Machine::running(VgicConfig::new(2).with_one_of_n(true));
    machine.enable_spi(SPI);
    machine.route_to_any(SPI);
    machine.raise(SPI);
    assert!(machine.vcpus[0].irq_pending());

    machine.vcpus[0].reset();

    assert_eq!(machine.acknowledge(1), u64::from(SPI));
}

#[test]
fn a_vcpu_reset_keeps_private_interrupts() {
    let mut machine = machine();
    for (field, value) in [(Field::Enable, 1), (Field::Pend, 1), (Field::Priority, 0xa0)] {
        machine.set_field(0, field, 27, value);
    }
    assert_eq!(machine.acknowledge(0), 27);
    machine.gic.set_line(Line::Ppi { cpu: Cpu::new(0), intid: 27 }, Level::High);

    machine.vcpus[0].reset();

    machine.msr(0, icc::PMR.encoding(), 0xff);
    machine.msr(0, icc::IGRPEN1.encoding(), 1);
    assert_eq!(machine.acknowledge(0), 1023, "the interrupt must still be active");
    machine.set_field(0, Field::Deactivate, 27, 1);
    assert_eq!(machine.acknowledge(0), 27);
    assert_eq!(machine.mrs(0, icc::RPR.encoding()), 0xa0);
}
