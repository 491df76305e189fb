//! Obstacles to SGIs, PPIs and SPIs.

use super::guest::{CPU, facts};
use doorbell_test_support::guest::{Field, Machine};
use gic_arch::gicd::{self, Irouter};
use gic_arch::icc::{self, Sgi};
use gic_arch::{Affinity, IntId, gicr};
use msi_types::explain::{Fact, Group, Obstacle, TargetState};
use msi_types::{Cpu, HwIrq, Level, Line, SetLine};
use vgic::VgicConfig;

const SPI: u32 = 40;
const PPI: u32 = 27;
const INTERRUPT: HwIrq = HwIrq::new(SPI);
const ABSENT: Affinity = Affinity::new(0, 0, 7, 3);

/// A machine whose guest has enabled an SPI and a PPI.
fn machine() -> Machine {
    configured(VgicConfig::new(2))
}

fn configured(config: VgicConfig) -> Machine {
    let machine = Machine::running(config);
    machine.enable_spi(SPI);
    machine.enable_private(0, PPI);
    machine
}

/// Lets the guest acknowledge the SPI.
fn take(machine: &mut Machine) {
    machine.raise(SPI);
    machine.acknowledge(0);
}

fn obstacle(machine: &Machine, cpu: u32, intid: u32) -> Option<Obstacle> {
    machine.gic.explain_interrupt(Cpu::new(cpu), IntId::new(intid)).obstacle()
}

#[test]
fn a_working_spi_has_no_obstacle() {
    let machine = machine();
    machine.raise(SPI);
    let explanation = machine.gic.explain_interrupt(CPU, IntId::new(SPI));
    assert_eq!(explanation.obstacle(), None);
    let expected = [
        Fact::Line(Level::High),
        Fact::Input(INTERRUPT),
        Fact::Enabled(0),
        Fact::Pending(INTERRUPT),
        Fact::Target(CPU, TargetState::InMonitor),
        Fact::Signaled(CPU),
    ];
    assert_eq!(facts(&explanation), expected);
}

#[test]
fn interrupts_without_a_signal_are_idle() {
    let machine = machine();
    let explained = |intid| machine.gic.explain_interrupt(CPU, IntId::new(intid));
    let line = explained(SPI);
    assert!(line.is_idle() && explained(PPI).is_idle());
    let low = [Fact::Line(Level::Low), Fact::NotPending(INTERRUPT), Fact::WouldSignal(CPU)];
    assert!(low.into_iter().all(|fact| facts(&line).contains(&fact)), "{line}");
    machine.make_edge(SPI);
    assert!(explained(SPI).is_idle());
}

/// The obstacles at the CPU are found although the device has not signaled its interrupt.
#[test]
fn an_idle_interrupt_shows_all_its_obstacles() {
    let mut machine = Machine::running(VgicConfig::new(1));
    machine.msr(0, icc::PMR.encoding(), 0);
    let asleep = gicr::Waker::new().with_processor_sleep(true);
    machine.write_gicr(0, gicr::WAKER, asleep);
    let explained = machine.gic.explain_interrupt(CPU, IntId::new(SPI));
    let expected = [
        Obstacle::Disabled { interrupt: INTERRUPT },
        Obstacle::Asleep { cpu: CPU },
        Obstacle::PriorityMasked { priority: 0, mask: 0, cpu: CPU },
    ];
    assert!(explained.obstacles().eq(expected), "{explained}");
}

/// A name, a function that changes a machine before an SPI arrives, and the obstacle to the SPI.
type Planted = (&'static str, fn(&mut Machine), Obstacle);

#[test]
fn each_obstacle_to_an_spi_is_named() {
    let (interrupt, cpu, group) = (INTERRUPT, CPU, Group::Zero);
    let affinity = Irouter::to(ABSENT).into_bits();
    let rows: [Planted; 7] = [
        ("disabled", |it| it.set_bit(gicd::ICENABLER, SPI), Obstacle::Disabled { interrupt }),
        (
            "in Group 0, while the guest uses Group 1",
            |it| it.set_field(0, Field::Group, SPI, 0),
            Obstacle::WrongGroup { interrupt, group },
        ),
        (
            "in Group 0, while the guest uses neither group",
            |it| {
                it.set_field(0, Field::Group, SPI, 0);
                it.msr(0, icc::IGRPEN1.encoding(), 0);
            },
            Obstacle::InterfaceGroupDisabled { group, cpu },
        ),
        ("acknowledged", take, Obstacle::Active { interrupt, cpu: Some(CPU) }),
        (
            "ended with split EOI, but active",
            |it| {
                it.msr(0, icc::CTLR.encoding(), icc::Ctlr::new().with_eoi_mode(true).into_bits());
                take(it);
                it.end(0, SPI.into());
            },
            Obstacle::Active { interrupt, cpu: Some(CPU) },
        ),
        (
            "routed to no CPU",
            |it| it.route(SPI, Irouter::to(ABSENT)),
            Obstacle::NoTarget { affinity },
        ),
        (
            "no higher than the running priority",
            |it| {
                it.enable_spi(SPI + 1);
                it.raise(SPI + 1);
                it.acknowledge(0);
            },
            Obstacle::PriorityNotHigher { priority: 0, running: 0, cpu },
        ),
    ];
    for (name, plant, expected) in rows {
        let mut machine = machine();
        plant(&mut machine);
        machine.raise(SPI);
        let explanation = machine.gic.explain_interrupt(CPU, IntId::new(SPI));
        assert_eq!(explanation.obstacle(), Some(expected), "{name}");
        assert!(facts(&explanation).contains(&Fact::Line(Level::High)), "{name}");
    }
}

#[test]
fn a_one_of_n_spi_without_an_enabled_cpu_names_the_queried_cpu() {
    let mut machine = configured(VgicConfig::new(2).with_one_of_n(true));
    machine.route_to_any(SPI);
    machine.msr(0, icc::IGRPEN1.encoding(), 0);
    machine.msr(1, icc::IGRPEN1.encoding(), 0);
    machine.raise(SPI);
    for cpu in [0, 1] {
        let expected = Obstacle::InterfaceGroupDisabled { group: Group::One, cpu: Cpu::new(cpu) };
        assert_eq!(obstacle(&machine, cpu, SPI), Some(expected));
    }
}

#[test]
fn a_pulse_that_a_level_input_loses_is_shown() {
    let lost = |machine: &Machine| {
        let explained = machine.gic.explain_interrupt(CPU, IntId::new(SPI));
        explained.obstacle() == Some(Obstacle::PulseLost { interrupt: INTERRUPT })
    };
    let machine = machine();
    assert!(!lost(&machine), "before a pulse");
    let _ = machine.gic.pulse(Line::Spi(SPI));
    assert!(lost(&machine), "after a pulse");
    machine.raise(SPI);
    assert!(!lost(&machine), "while the line is high");
    machine.make_edge(SPI);
    machine.gic.set_line(Line::Spi(SPI), Level::Low);
    assert!(!lost(&machine), "after the input became edge-triggered");
}

#[test]
fn an_spi_already_in_a_list_register_is_named() {
    let mut machine = machine();
    machine.raise(SPI);
    let mut vcpu = machine.list_register_vcpu();
    let _inside = vcpu.enter();
    let expected = Obstacle::Listed { interrupt: INTERRUPT, cpu: CPU };
    assert_eq!(obstacle(&machine, 0, SPI), Some(expected));
}

#[test]
fn an_sgi_is_explained_at_its_target_cpu() {
    let mut machine = machine();
    machine.enable_private(1, 3);
    let interrupt = HwIrq::new(3);
    assert!(machine.gic.explain_interrupt(Cpu::new(1), IntId::new(3)).is_idle());
    let sgi = Sgi::new().with_intid(3).with_target_list(1 << 1);
    machine.msr(0, icc::SGI1R.encoding(), sgi.into_bits());
    assert_eq!(obstacle(&machine, 1, 3), None);
    assert_eq!(obstacle(&machine, 0, 3), Some(Obstacle::Disabled { interrupt }));
}

#[test]
fn interrupts_that_do_not_exist_are_named() {
    let machine = machine();
    for (cpu, intid) in [(0, 1000), (0, 1023), (2, PPI), (2, SPI), (u32::MAX, 8192), (0, u32::MAX)]
    {
        let interrupt = HwIrq::new(intid);
        let expected = Obstacle::NoSuchInterrupt { interrupt };
        assert_eq!(obstacle(&machine, cpu, intid), Some(expected), "{cpu} {intid}");
    }
}
