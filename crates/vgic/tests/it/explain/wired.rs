//! Obstacles to SGIs, PPIs and SPIs.

use super::guest::{CPU, facts};
use doorbell_test_support::guest::Machine;
use doorbell_test_support::guest::vtr;
use gic_arch::gicd::{self, Irouter};
use gic_arch::icc::{self, Sgi};
use gic_arch::{Affinity, IntId, gicr};
use msi_types::explain::{Fact, Group, Obstacle, TargetState};
use msi_types::{Cpu, HwIrq, Level, Line, SetLine};
use vgic::VgicConfig;

const SPI: u32 = 40;
const PPI: u32 = 27;
const INTERRUPT: HwIrq = HwIrq::new(SPI);

/// A machine whose guest has enabled an SPI and a PPI.
fn machine() -> Machine {
    configured(VgicConfig::new(2))
}

fn configured(config: VgicConfig) -> Machine {
    let machine = Machine::running(config);
    machine.enable_spi(SPI);
    machine.write_gicr(0, gicr::ISENABLER.locate(IntId::new(PPI)).unwrap().register(), 1 << PPI);
    machine
}

fn raise(machine: &Machine) {
    machine.gic.set_line(Line::Spi(SPI), Level::High);
}

fn obstacle(machine: &Machine, cpu: u32, intid: u32) -> Option<Obstacle> {
    machine.gic.explain_interrupt(Cpu::new(cpu), IntId::new(intid)).obstacle()
}

#[test]
fn a_working_spi_has_no_obstacle() {
    let machine = machine();
    raise(&machine);
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

#[test]
fn a_disabled_spi_is_named() {
    let machine = Machine::running(VgicConfig::new(1));
    raise(&machine);
    assert_eq!(obstacle(&machine, 0, SPI), Some(Obstacle::Disabled { interrupt: INTERRUPT }));
}

#[test]
fn a_group_that_the_driver_does_not_handle_is_named() {
    let machine = machine();
    machine.write_gicd(gicd::IGROUPR.locate(IntId::new(SPI)).unwrap().register(), 0);
    raise(&machine);
    let expected = Obstacle::WrongGroup { interrupt: INTERRUPT, group: Group::Zero };
    assert_eq!(obstacle(&machine, 0, SPI), Some(expected));
}

#[test]
fn a_guest_of_group_0_is_not_told_to_use_group_1() {
    let mut machine = machine();
    machine.write_gicd(gicd::IGROUPR.locate(IntId::new(SPI)).unwrap().register(), 0);
    machine.msr(0, icc::IGRPEN1.encoding(), 0);
    raise(&machine);
    let expected = Obstacle::InterfaceGroupDisabled { group: Group::Zero, cpu: CPU };
    assert_eq!(obstacle(&machine, 0, SPI), Some(expected));
}

#[test]
fn a_forgotten_deactivation_is_named() {
    let mut machine = machine();
    raise(&machine);
    machine.acknowledge(0);
    let explanation = machine.gic.explain_interrupt(CPU, IntId::new(SPI));
    let expected = Obstacle::Active { interrupt: INTERRUPT, cpu: Some(CPU) };
    assert_eq!(explanation.obstacle(), Some(expected));
    assert!(facts(&explanation).contains(&Fact::Line(Level::High)), "the level is still high");
}

#[test]
fn with_split_eoi_an_spi_blocks_until_it_is_deactivated() {
    let mut machine = machine();
    machine.msr(0, icc::CTLR.encoding(), icc::Ctlr::new().with_eoi_mode(true).into_bits());
    raise(&machine);
    machine.acknowledge(0);
    machine.end(0, SPI.into());
    let expected = Obstacle::Active { interrupt: INTERRUPT, cpu: Some(CPU) };
    assert_eq!(obstacle(&machine, 0, SPI), Some(expected));
    machine.msr(0, icc::DIR.encoding(), SPI.into());
    assert_eq!(obstacle(&machine, 0, SPI), None);
}

#[test]
fn a_route_to_no_cpu_is_named() {
    let machine = machine();
    let route = Irouter::to(Affinity::new(0, 0, 7, 3));
    machine.write_gicd(gicd::IROUTER.get(SPI).unwrap(), route);
    raise(&machine);
    let affinity = route.into_bits();
    assert_eq!(obstacle(&machine, 0, SPI), Some(Obstacle::NoTarget { affinity }));
}

#[test]
fn a_one_of_n_spi_without_an_enabled_cpu_names_the_queried_cpu() {
    let mut machine = configured(VgicConfig::new(2).with_one_of_n(true));
    let any = Irouter::new().with_any_participating(true);
    machine.write_gicd(gicd::IROUTER.get(SPI).unwrap(), any);
    machine.msr(0, icc::IGRPEN1.encoding(), 0);
    machine.msr(1, icc::IGRPEN1.encoding(), 0);
    raise(&machine);
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
    raise(&machine);
    assert!(!lost(&machine), "while the line is high");
    machine.make_edge(SPI);
    machine.gic.set_line(Line::Spi(SPI), Level::Low);
    assert!(!lost(&machine), "after the input became edge-triggered");
}

#[test]
fn a_running_priority_that_blocks_an_spi_is_named() {
    let mut machine = machine();
    machine.enable_spi(SPI + 1);
    machine.gic.set_line(Line::Spi(SPI + 1), Level::High);
    machine.acknowledge(0);
    raise(&machine);
    let expected = Obstacle::PriorityNotHigher { priority: 0, running: 0, cpu: CPU };
    assert_eq!(obstacle(&machine, 0, SPI), Some(expected));
}

#[test]
fn an_spi_already_in_a_list_register_is_named() {
    let mut machine = machine();
    raise(&machine);
    let mut vcpu = machine.vcpus.remove(0).with_list_registers(vtr(4, 5)).unwrap();
    let _inside = vcpu.enter();
    let expected = Obstacle::Listed { interrupt: INTERRUPT, cpu: CPU };
    assert_eq!(obstacle(&machine, 0, SPI), Some(expected));
}

#[test]
fn an_sgi_is_explained_at_its_target_cpu() {
    let mut machine = machine();
    let enable = gicr::ISENABLER.locate(IntId::new(3)).unwrap();
    machine.write_gicr(1, enable.register(), 1 << 3);
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
