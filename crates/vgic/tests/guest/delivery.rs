//! Delivery of lines and messages beyond what the reference interpreter covers: level resampling, 1
//! of N, message-based SPIs, direct LPIs, active-priority registers, resets.

use crate::machine::{Machine, RAM};
use gic_arch::gicd::Irouter;
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser, Waker};
use gic_arch::{IntId, gicd, gicr, icc};
use msi_types::{Cpu, Delivery, Level, Line, LineObserver, SetLine};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use vgic::{AccessWidth, GuestMemory, Inputs, SecurityView, Vcpu, Vgic, VgicConfig};

const SPI: u32 = 40;

/// A source that is done when the guest is: lowers its line.
struct Resampler {
    gic: Mutex<Weak<Vgic>>,
    heard: Mutex<Vec<Line>>,
    lowers: AtomicBool,
}

impl LineObserver for Resampler {
    fn deactivated(&self, line: Line) {
        self.heard.lock().unwrap().push(line);
        if self.lowers.load(Ordering::SeqCst) {
            self.gic.lock().unwrap().upgrade().unwrap().set_line(line, Level::Low);
        }
    }
}

fn observed(lowers: bool) -> (Machine, Arc<Resampler>) {
    let machine = Machine::running(VgicConfig::new(2));
    let resampler = Arc::new(Resampler {
        gic: Mutex::new(Arc::downgrade(&machine.gic)),
        heard: Mutex::default(),
        lowers: AtomicBool::new(lowers),
    });
    machine.gic.observe_lines(resampler.clone()).unwrap();
    machine.enable_spi(SPI);
    (machine, resampler)
}

#[test]
fn an_observer_can_lower_a_level_at_its_end() {
    let (mut machine, resampler) = observed(true);
    machine.gic.set_line(Line::Spi(SPI), Level::High);
    assert_eq!(machine.acknowledge(0), u64::from(SPI));

    machine.end(0, SPI.into());

    assert_eq!(*resampler.heard.lock().unwrap(), [Line::Spi(SPI)]);
    assert_eq!(machine.acknowledge(0), 1023);
}

#[test]
fn a_level_that_stays_high_interrupts_again() {
    let (mut machine, _) = observed(false);
    machine.gic.set_line(Line::Spi(SPI), Level::High);
    assert_eq!(machine.acknowledge(0), u64::from(SPI));
    assert_eq!(machine.acknowledge(0), 1023, "while it is active");

    machine.end(0, SPI.into());

    assert_eq!(machine.acknowledge(0), u64::from(SPI));
}

#[test]
fn the_observer_does_not_hear_of_edges() {
    let (mut machine, resampler) = observed(true);
    machine.make_edge(SPI);
    machine.gic.set_line(Line::Spi(SPI), Level::High);
    assert_eq!(machine.acknowledge(0), u64::from(SPI));

    machine.end(0, SPI.into());

    assert_eq!(*resampler.heard.lock().unwrap(), []);
}

#[test]
fn with_split_eoi_observers_see_deactivation() {
    let (mut machine, resampler) = observed(true);
    machine.msr(0, icc::CTLR.encoding(), icc::Ctlr::new().with_eoi_mode(true).into_bits());
    machine.gic.set_line(Line::Spi(SPI), Level::High);
    assert_eq!(machine.acknowledge(0), u64::from(SPI));

    machine.end(0, SPI.into());
    assert_eq!(*resampler.heard.lock().unwrap(), []);

    machine.msr(0, icc::DIR.encoding(), SPI.into());
    assert_eq!(*resampler.heard.lock().unwrap(), [Line::Spi(SPI)]);
}

#[test]
fn another_cpu_can_deactivate_a_shared_interrupt() {
    let (mut machine, _) = observed(true);
    machine.msr(1, icc::CTLR.encoding(), icc::Ctlr::new().with_eoi_mode(true).into_bits());
    machine.gic.set_line(Line::Spi(SPI), Level::High);
    assert_eq!(machine.acknowledge(0), u64::from(SPI));

    machine.msr(1, icc::DIR.encoding(), SPI.into());

    let active = gicd::ISACTIVER.locate(IntId::new(SPI)).unwrap();
    assert_eq!(machine.read_gicd(active.register()), 0);
}

#[test]
fn there_is_one_observer() {
    let (machine, resampler) = observed(true);
    assert!(machine.gic.observe_lines(resampler).is_err());
}

#[test]
fn lines_that_do_not_exist_are_refused() {
    let machine = Machine::running(VgicConfig::new(1));
    let cpu = Cpu::new(0);
    for line in [
        Line::Spi(31),
        Line::Spi(288),
        Line::Spi(1020),
        Line::Spi(4096),
        Line::Spi(8192),
        Line::Ppi { cpu, intid: 15 },
        Line::Ppi { cpu, intid: 32 },
        Line::Ppi { cpu, intid: 1056 },
        Line::Ppi { cpu: Cpu::new(1), intid: 16 },
    ] {
        assert_eq!(machine.gic.set_line(line, Level::High), Delivery::NoDoorbell, "{line:?}");
    }
}

#[test]
fn a_line_reports_pending_even_if_disabled() {
    let machine = Machine::running(VgicConfig::new(1));
    assert_eq!(machine.gic.set_line(Line::Spi(SPI), Level::High), Delivery::Pending);
    assert_eq!(machine.gic.set_line(Line::Spi(SPI), Level::Low), Delivery::Blocked);
}

/// A machine of `cpus` with an edge SPI that any CPU may take.
fn any_cpu(cpus: u16) -> Machine {
    let machine = Machine::running(VgicConfig::new(cpus).with_one_of_n(true));
    machine.make_edge(SPI);
    machine.enable_spi(SPI);
    route_to_any(&machine);
    machine
}

fn route_to_any(machine: &Machine) {
    let route = gicd::irouter(IntId::new(SPI)).unwrap();
    machine.write_gicd(route, Irouter::new().with_any_participating(true));
}

fn pulse(machine: &Machine) {
    machine.gic.set_line(Line::Spi(SPI), Level::High);
    machine.gic.set_line(Line::Spi(SPI), Level::Low);
}

/// The CPUs that are signalled.
fn signalled(machine: &mut Machine) -> Vec<usize> {
    let irq = machine.vcpus.iter_mut().map(Vcpu::irq_pending);
    irq.enumerate().filter(|(_, irq)| *irq).map(|(cpu, _)| cpu).collect()
}

#[test]
fn one_of_n_takes_turns() {
    let mut machine = any_cpu(3);
    let mut taken = Vec::new();
    for _ in 0..6 {
        pulse(&machine);
        let [cpu] = signalled(&mut machine)[..] else { panic!("not exactly one CPU") };
        assert_eq!(machine.acknowledge(cpu), u64::from(SPI));
        machine.end(cpu, SPI.into());
        taken.push(cpu);
    }
    assert_eq!(taken, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn one_of_n_leaves_a_cpu_that_withdraws() {
    let withdraw: [fn(&mut Machine, usize); 3] = [
        |machine, cpu| {
            machine.write_gicr(cpu, gicr::WAKER, Waker::new().with_processor_sleep(true));
        },
        |machine, cpu| machine.write_gicr(cpu, gicr::CTLR, Ctlr::new().with_dpg1_ns(true)),
        |machine, cpu| machine.msr(cpu, icc::IGRPEN1.encoding(), 0),
    ];
    for withdraw in withdraw {
        let mut machine = any_cpu(2);
        pulse(&machine);
        let [cpu] = signalled(&mut machine)[..] else { panic!("not exactly one CPU") };

        withdraw(&mut machine, cpu);

        assert_eq!(signalled(&mut machine), [1 - cpu]);
    }
}

#[test]
fn an_untaken_one_of_n_waits_for_a_cpu() {
    let mut machine = any_cpu(2);
    for cpu in 0..2 {
        machine.write_gicr(cpu, gicr::CTLR, Ctlr::new().with_dpg1_ns(true));
    }
    pulse(&machine);
    assert!(signalled(&mut machine).is_empty());

    machine.write_gicr(1, gicr::CTLR, Ctlr::new());

    assert_eq!(signalled(&mut machine), [1]);
}

#[test]
fn a_pending_interrupt_follows_its_route() {
    let mut machine = any_cpu(2);
    let route = gicd::irouter(IntId::new(SPI)).unwrap();
    let second = machine.gic.config().cpus[1].affinity;
    machine.write_gicd(route, Irouter::to(second));
    pulse(&machine);
    assert_eq!(signalled(&mut machine), [1]);

    route_to_any(&machine);
    assert_eq!(signalled(&mut machine).len(), 1);

    machine.write_gicd(route, Irouter::to(second));
    assert_eq!(signalled(&mut machine), [1]);
}

#[test]
fn a_message_makes_an_edge_spi_pending_once() {
    let mut machine = Machine::running(VgicConfig::new(1).with_message_based_spis(true));
    machine.make_edge(SPI);
    machine.enable_spi(SPI);
    let doorbell = machine.gic.config().distributor + u64::from(gicd::SETSPI_NSR.offset());

    machine.write(doorbell, AccessWidth::Half, SPI.into());

    assert_eq!(machine.acknowledge(0), u64::from(SPI));
    machine.end(0, SPI.into());
    assert_eq!(machine.acknowledge(0), 1023);
}

#[test]
fn a_message_holds_a_level_spi_until_cleared() {
    let mut machine = Machine::running(VgicConfig::new(1).with_message_based_spis(true));
    machine.enable_spi(SPI);

    machine.write_gicd(gicd::SETSPI_NSR, SPI);
    assert_eq!(machine.acknowledge(0), u64::from(SPI));
    machine.end(0, SPI.into());
    assert_eq!(machine.acknowledge(0), u64::from(SPI));

    machine.write_gicd(gicd::CLRSPI_NSR, SPI);
    machine.end(0, SPI.into());
    assert_eq!(machine.acknowledge(0), 1023);
}

#[test]
fn messages_need_a_distributor_with_mbis() {
    let mut machine = Machine::running(VgicConfig::new(1));
    machine.enable_spi(SPI);
    machine.write_gicd(gicd::SETSPI_NSR, SPI);
    assert_eq!(machine.acknowledge(0), 1023);
}

/// A machine with direct LPIs, all enabled with these configuration bytes.
fn direct(security: SecurityView, configuration: &[u8]) -> Machine {
    let config =
        VgicConfig::new(2).with_direct_lpi(true).with_lpi_id_bits(Some(14)).with_security(security);
    let machine = Machine::running(config);
    machine.ram.write(RAM, configuration).unwrap();
    for cpu in 0..2 {
        let pending = RAM + 0x1_0000 * (1 + cpu as u64);
        let tables = Propbaser::new().with_id_bits_minus_one(13).with_address(RAM);
        machine.write_gicr(cpu, gicr::PROPBASER, tables);
        machine.write_gicr(cpu, gicr::PENDBASER, Pendbaser::new().with_address(pending));
        machine.write_gicr(cpu, gicr::CTLR, Ctlr::new().with_enable_lpis(true));
    }
    machine
}

#[test]
fn a_direct_lpi_needs_no_deactivation() {
    let mut machine = direct(SecurityView::Single, &[0xa1; 16]);

    machine.write_gicr(1, gicr::SETLPIR, 8195);

    assert_eq!(signalled(&mut machine), [1]);
    assert_eq!(machine.acknowledge(1), 8195);
    machine.write_gicr(1, gicr::SETLPIR, 8195);
    assert_eq!(machine.acknowledge(1), 1023, "the priority is active");
    machine.end(1, 8195);
    assert_eq!(machine.acknowledge(1), 8195);
}

#[test]
fn a_direct_lpi_takes_32_bits_and_can_be_cleared() {
    let mut machine = direct(SecurityView::Single, &[0xa1; 16]);
    let doorbell = machine.frame(0) + u64::from(gicr::SETLPIR.offset());

    machine.write(doorbell, AccessWidth::Word, 8195);
    assert_eq!(signalled(&mut machine), [0]);

    machine.write_gicr(0, gicr::CLRLPIR, 8195);
    assert!(signalled(&mut machine).is_empty());
}

#[test]
fn lpis_and_wires_share_one_priority_order() {
    let mut machine = direct(SecurityView::Single, &[0x41, 0x81, 0x80]);
    machine.make_edge(SPI);
    machine.enable_spi(SPI);
    let priority = gicd::IPRIORITYR.locate(IntId::new(SPI)).unwrap();
    machine.write(
        machine.gic.config().distributor + u64::from(priority.byte_offset()),
        AccessWidth::Byte,
        0x80,
    );

    pulse(&machine);
    for lpi in [8194, 8193, 8192] {
        machine.write_gicr(0, gicr::SETLPIR, lpi);
    }

    let mut order = Vec::new();
    for _ in 0..4 {
        let intid = machine.acknowledge(0);
        machine.end(0, intid);
        order.push(intid);
    }
    assert_eq!(order, [8192, SPI.into(), 8193, 1023]);
}

#[test]
fn an_invalidation_changes_an_lpis_configuration() {
    let mut machine = direct(SecurityView::Single, &[0xa0; 16]);
    machine.write_gicr(0, gicr::SETLPIR, 8195);
    assert!(signalled(&mut machine).is_empty());

    machine.ram.write(RAM + 3, &[0xa1]).unwrap();
    machine.write_gicr(0, gicr::INVLPIR, 8195);

    assert_eq!(signalled(&mut machine), [0]);
}

#[test]
fn non_secure_lpis_have_non_secure_priorities() {
    let mut machine = direct(SecurityView::NonSecure, &[0x41; 16]);
    machine.write_gicr(0, gicr::SETLPIR, 8192);
    assert_eq!(machine.acknowledge(0), 8192);
    assert_eq!(machine.mrs(0, icc::RPR.encoding()), 0x40);
}

#[test]
fn lpis_wait_for_group_one_at_the_distributor() {
    let mut machine = direct(SecurityView::Single, &[0xa1; 16]);
    machine.write_gicd(gicd::CTLR, gicd::Ctlr::new());
    machine.write_gicr(0, gicr::SETLPIR, 8192);
    assert!(signalled(&mut machine).is_empty());
    assert_eq!(machine.acknowledge(0), 1023);

    machine.write_gicd(gicd::CTLR, gicd::Ctlr::from(2));

    assert_eq!(signalled(&mut machine), [0]);
}

#[test]
fn sleepers_and_group_zero_acknowledge_no_lpi() {
    let mut machine = direct(SecurityView::Single, &[0xa1; 16]);
    machine.msr(0, icc::IGRPEN0.encoding(), 1);
    machine.write_gicr(0, gicr::SETLPIR, 8192);
    assert_eq!(machine.mrs(0, icc::IAR0.encoding()), 1023);

    machine.write_gicr(0, gicr::WAKER, Waker::new().with_processor_sleep(true));
    assert_eq!(machine.acknowledge(0), 1023);

    machine.write_gicr(0, gicr::WAKER, Waker::new());
    assert_eq!(machine.acknowledge(0), 8192);
}

#[test]
fn a_vcpu_off_and_on_keeps_its_lpis() {
    let mut machine = direct(SecurityView::Single, &[0xa1; 16]);
    machine.write_gicr(0, gicr::SETLPIR, 8192);
    machine.vcpus[0].reset();
    machine.write_gicr(0, gicr::SETLPIR, 8193);

    assert_eq!(machine.read_gicr(0, gicr::CTLR) & 1, 1);
    machine.msr(0, icc::PMR.encoding(), 0xff);
    machine.msr(0, icc::IGRPEN1.encoding(), 1);
    let mut taken: Vec<_> = (0..2).map(|_| take(&mut machine)).collect();
    taken.sort_unstable();
    assert_eq!(taken, [8192, 8193]);
}

/// Acknowledges and ends, at CPU 0.
fn take(machine: &mut Machine) -> u64 {
    let intid = machine.acknowledge(0);
    machine.end(0, intid);
    intid
}

#[test]
fn an_unacknowledged_end_drops_the_priority() {
    for (register, intid, running) in [
        (icc::EOIR1.encoding(), 1020, 0xa0),
        (icc::EOIR1.encoding(), 1023, 0xa0),
        (icc::EOIR0.encoding(), u64::from(SPI), 0xa0),
        (icc::EOIR1.encoding(), 41, 0xff),
        (icc::EOIR1.encoding(), 900, 0xff),
        (icc::EOIR1.encoding(), 5120, 0xff),
    ] {
        let mut machine = Machine::running(VgicConfig::new(1));
        machine.enable_spi(SPI);
        machine.make_edge(SPI);
        let priority = gicd::IPRIORITYR.locate(IntId::new(SPI)).unwrap();
        machine.write_gicd(priority.register(), 0xa0);
        pulse(&machine);
        assert_eq!(machine.acknowledge(0), u64::from(SPI));

        machine.msr(0, register, intid);

        assert_eq!(machine.mrs(0, icc::RPR.encoding()), running, "{intid}");
        let active = gicd::ISACTIVER.locate(IntId::new(SPI)).unwrap();
        assert_eq!(machine.read_gicd(active.register()), u64::from(active.mask()), "{intid}");
    }
}

#[test]
fn active_priorities_read_and_write_back() {
    let mut machine = Machine::running(VgicConfig::new(1).with_priority_bits(7));
    let registers = icc::AP1R.map(icc::SysReg::encoding);

    for (register, value) in registers.into_iter().zip([0, 0x10, 0, 0x8000_0000]) {
        machine.msr(0, register, value);
    }

    assert_eq!(registers.map(|register| machine.mrs(0, register)), [0, 0x10, 0, 0x8000_0000]);
    assert_eq!(machine.mrs(0, icc::RPR.encoding()), (32 + 4) << 1);
}

#[test]
fn secure_active_priorities_are_out_of_reach() {
    let config = VgicConfig::new(1).with_security(SecurityView::NonSecure);
    let mut machine = Machine::running(config);
    machine.msr(0, icc::AP1R0.encoding(), 0xffff_ffff);
    assert_eq!(machine.mrs(0, icc::AP1R0.encoding()), 0xffff_0000);
}

#[test]
fn absent_registers_are_undefined() {
    let mut machine = Machine::running(VgicConfig::new(1));
    let vcpu = &mut machine.vcpus[0];
    assert!(vcpu.read_sysreg(icc::EOIR1.encoding()).is_err());
    assert!(vcpu.write_sysreg(icc::IAR1.encoding(), 0).is_err());
    assert!(vcpu.read_sysreg(icc::AP1R1.encoding()).is_err(), "with 5 priority bits");
    assert!(vcpu.read_sysreg(icc::SysRegEncoding::new(3, 0, 12, 12, 1)).is_err());
    assert!(vcpu.read_sysreg(icc::SysRegEncoding::new(3, 4, 12, 9, 5)).is_err(), "ICC_SRE_EL2");
}

#[test]
fn a_system_reset_keeps_only_the_lines() {
    let mut machine = Machine::running(VgicConfig::new(1));
    machine.enable_spi(SPI);
    machine.gic.set_line(Line::Spi(SPI), Level::High);
    machine.acknowledge(0);

    machine.gic.reset();
    machine.vcpus[0].reset();

    let fresh = Machine::new(VgicConfig::new(1));
    let pending = gicd::ISPENDR.locate(IntId::new(SPI)).unwrap();
    for address in
        (0x0800_0000..0x080c_0000).step_by(4).filter(|address| fresh.gic.claims(*address))
    {
        let line = address - 0x0800_0000 == u64::from(pending.register().offset());
        let expected =
            fresh.read(address, AccessWidth::Word) | if line { pending.mask().into() } else { 0 };
        let clear = address - 0x0800_0000 == u64::from(pending.register().offset()) + 0x80;
        let expected = if clear { pending.mask().into() } else { expected };
        assert_eq!(machine.read(address, AccessWidth::Word), expected, "{address:#x}");
    }
    assert_eq!(machine.mrs(0, icc::RPR.encoding()), 0xff);
    assert_eq!(machine.mrs(0, icc::PMR.encoding()), 0);
    assert_eq!(machine.vcpus[0].inputs(), Inputs::default());
}
