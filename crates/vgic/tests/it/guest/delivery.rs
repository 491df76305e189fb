//! Delivery tests for features that the reference in `tests/model` does not have: line observers,
//! rotation of 1-of-N interrupts, active-priority registers, and resets.

use doorbell_test_support::guest::{Machine, RAM};
use gic_arch::{IntId, gicd, gicr, icc};
use msi_types::{Cpu, Delivery, Level, Line, LineObserver, SetLine};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use vgic::{AccessWidth, GuestMemory, Inputs, SecurityView, Sleep, Vcpu, Vgic, VgicConfig};

const SPI: u32 = 40;

/// An interrupt source that lowers its line once the guest has ended the interrupt.
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
fn an_observer_can_deassert_a_line_at_eoi() {
    let (mut machine, resampler) = observed(true);
    machine.raise(SPI);
    assert_eq!(machine.acknowledge(0), u64::from(SPI));

    machine.end(0, SPI.into());

    assert_eq!(*resampler.heard.lock().unwrap(), [Line::Spi(SPI)]);
    assert_eq!(machine.acknowledge(0), 1023);
}

#[test]
fn set_pending_delivers_edge_and_level_interrupts_once() {
    let mut machine = Machine::running(VgicConfig::new(2));
    let (ppi, edge) = (20, SPI + 1);
    machine.make_edge(edge);
    machine.enable_spi(SPI);
    machine.enable_spi(edge);
    machine.enable_private(0, ppi);
    for line in [Line::Spi(SPI), Line::Spi(edge), Line::Ppi { cpu: Cpu::new(0), intid: ppi }] {
        assert_eq!(machine.vcpus[0].prepare_to_sleep(), Sleep::Ready);
        for _ in 0..2 {
            assert_eq!(machine.gic.set_pending(line), Delivery::Pending, "{line:?}");
        }
        machine.gic.set_line(line, Level::Low);
        machine.vcpus[0].returned();
        let (Line::Spi(intid) | Line::Ppi { intid, .. }) = line;
        assert_eq!(machine.handle(0), u64::from(intid));
        assert_eq!(machine.acknowledge(0), 1023);
    }
    assert_eq!(machine.kicks.of(0), 3);
    assert_eq!(machine.gic.set_pending(Line::Spi(1019)), Delivery::NoDoorbell);
}

#[test]
fn an_observer_is_not_notified_of_edges() {
    let (mut machine, resampler) = observed(true);
    machine.make_edge(SPI);
    machine.raise(SPI);
    assert_eq!(machine.acknowledge(0), u64::from(SPI));

    machine.end(0, SPI.into());

    assert_eq!(*resampler.heard.lock().unwrap(), []);
}

#[test]
fn with_split_eoi_observers_see_deactivation() {
    let (mut machine, resampler) = observed(true);
    machine.msr(0, icc::CTLR.encoding(), icc::Ctlr::new().with_eoi_mode(true).into_bits());
    machine.raise(SPI);
    assert_eq!(machine.acknowledge(0), u64::from(SPI));

    machine.end(0, SPI.into());
    assert_eq!(*resampler.heard.lock().unwrap(), []);

    machine.msr(0, icc::DIR.encoding(), SPI.into());
    assert_eq!(*resampler.heard.lock().unwrap(), [Line::Spi(SPI)]);
}

#[test]
fn a_second_line_observer_is_refused() {
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
fn set_line_reports_pending_even_if_the_interrupt_is_disabled() {
    let machine = Machine::running(VgicConfig::new(1));
    assert_eq!(machine.gic.set_line(Line::Spi(SPI), Level::High), Delivery::Pending);
    assert_eq!(machine.gic.set_line(Line::Spi(SPI), Level::Low), Delivery::Blocked);
}

/// Creates a machine of `cpus` CPUs with an edge-triggered SPI that any CPU may take.
fn any_cpu(cpus: u16) -> Machine {
    let machine = Machine::running(VgicConfig::new(cpus).with_one_of_n(true));
    machine.make_edge(SPI);
    machine.enable_spi(SPI);
    machine.route_to_any(SPI);
    machine
}

fn pulse(machine: &Machine) {
    machine.raise(SPI);
    machine.gic.set_line(Line::Spi(SPI), Level::Low);
}

/// Returns the CPUs whose IRQ input is asserted.
fn signaled(machine: &mut Machine) -> Vec<usize> {
    let irq = machine.vcpus.iter_mut().map(Vcpu::irq_pending);
    irq.enumerate().filter(|(_, irq)| *irq).map(|(cpu, _)| cpu).collect()
}

#[test]
fn a_one_of_n_spi_rotates_among_the_cpus() {
    let mut machine = any_cpu(3);
    let mut taken = Vec::new();
    for _ in 0..6 {
        pulse(&machine);
        let [cpu] = signaled(&mut machine)[..] else { panic!("exactly one CPU must be signaled") };
        assert_eq!(machine.acknowledge(cpu), u64::from(SPI));
        machine.end(cpu, SPI.into());
        taken.push(cpu);
    }
    assert_eq!(taken, [0, 1, 2, 0, 1, 2]);
}

/// Creates a machine with direct LPIs enabled at each redistributor, and with `configuration` as
/// the start of the LPI configuration table.
fn direct(security: SecurityView, configuration: &[u8]) -> Machine {
    let config =
        VgicConfig::new(2).with_direct_lpi(true).with_lpi_id_bits(Some(14)).with_security(security);
    let machine = Machine::running(config);
    machine.ram.write(RAM, configuration).unwrap();
    machine.enable_lpis(14, RAM, RAM + 0x1_0000);
    machine
}

#[test]
fn a_vcpu_reset_keeps_pending_lpis() {
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

/// Acknowledges and ends an interrupt at CPU 0.
fn take(machine: &mut Machine) -> u64 {
    let intid = machine.acknowledge(0);
    machine.end(0, intid);
    intid
}

#[test]
fn active_priority_registers_read_back_as_written() {
    let mut machine = Machine::running(VgicConfig::new(1).with_priority_bits(7));
    let registers = icc::AP1R.map(icc::SysReg::encoding);

    for (register, value) in registers.into_iter().zip([0, 0x10, 0, 0x8000_0000]) {
        machine.msr(0, register, value);
    }

    assert_eq!(registers.map(|register| machine.mrs(0, register)), [0, 0x10, 0, 0x8000_0000]);
    assert_eq!(machine.mrs(0, icc::RPR.encoding()), (32 + 4) << 1);
}

#[test]
fn a_non_secure_guest_cannot_write_secure_active_priorities() {
    let config = VgicConfig::new(1).with_security(SecurityView::NonSecure);
    let mut machine = Machine::running(config);
    machine.msr(0, icc::AP1R0.encoding(), 0xffff_ffff);
    assert_eq!(machine.mrs(0, icc::AP1R0.encoding()), 0xffff_0000);
}

#[test]
fn invalid_system_register_accesses_are_errors() {
    let mut machine = Machine::running(VgicConfig::new(1));
    let vcpu = &mut machine.vcpus[0];
    assert!(vcpu.read_sysreg(icc::EOIR1.encoding()).is_err());
    assert!(vcpu.write_sysreg(icc::IAR1.encoding(), 0).is_err());
    assert!(vcpu.read_sysreg(icc::AP1R1.encoding()).is_err(), "with 5 priority bits");
    assert!(vcpu.read_sysreg(icc::SysRegEncoding::new(3, 0, 12, 12, 1)).is_err());
    assert!(vcpu.read_sysreg(icc::SysRegEncoding::new(3, 4, 12, 9, 5)).is_err(), "ICC_SRE_EL2");
}

#[test]
fn a_system_reset_keeps_only_the_line_levels() {
    let mut machine = Machine::running(VgicConfig::new(1));
    machine.enable_spi(SPI);
    machine.raise(SPI);
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
