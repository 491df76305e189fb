//! Test with a well-behaved guest that uses every possible direct LPI at every redistributor.

use doorbell_test_support::guest::{Machine, RAM};
use gic_arch::gicr::{self, Ctlr, Pendbaser, Propbaser};
use msi_types::{Delivery, MsiMessage, NoIdentity, SignalMsi};
use vgic::{FaultReason, GuestMemory, VgicConfig};

const FIRST: u32 = 8192;
const SPURIOUS: u64 = 1023;

/// Creates a machine whose redistributors support every LPI that 16 INTID bits can number. Every
/// LPI is configured as enabled.
fn machine(cpus: u16) -> Machine {
    let config = VgicConfig::new(cpus).with_direct_lpi(true).with_lpi_id_bits(Some(16));
    let machine = Machine::running(config);
    machine.ram.write(RAM, &vec![0xa1; 57_344]).unwrap();
    for cpu in 0..usize::from(cpus) {
        let tables = Propbaser::new().with_id_bits_minus_one(15).with_address(RAM);
        machine.write_gicr(cpu, gicr::PROPBASER, tables);
        let pending = Pendbaser::new().with_address(RAM + 0x10_0000).with_pending_table_zero(true);
        machine.write_gicr(cpu, gicr::PENDBASER, pending);
        machine.write_gicr(cpu, gicr::CTLR, Ctlr::new().with_enable_lpis(true));
    }
    machine
}

fn ring(machine: &Machine, cpu: usize, lpi: u32) -> Delivery {
    let address = machine.frame(cpu) + u64::from(gicr::SETLPIR.offset());
    machine.gic.signal_msi(NoIdentity, MsiMessage { address, data: lpi })
}

/// Signals an LPI, and handles the acknowledged interrupt. Returns `true` if the guest acknowledged
/// that LPI.
fn delivered(machine: &mut Machine, cpu: usize, lpi: u32) -> bool {
    assert_eq!(ring(machine, cpu, lpi), Delivery::Pending);
    let intid = machine.acknowledge(cpu);
    if intid != SPURIOUS {
        machine.end(cpu, intid);
    }
    intid == u64::from(lpi)
}

#[test]
fn direct_lpis_are_delivered_at_every_redistributor() {
    let mut machine = machine(4);
    for cpu in 0..4 {
        for lpi in (FIRST..=0xffff).step_by(32) {
            assert!(delivered(&mut machine, cpu, lpi), "LPI {lpi} at vCPU {cpu}");
        }
    }
    assert_eq!(machine.gic.events().count(FaultReason::Budget), 0);
}

#[test]
fn all_lpis_can_be_pending_at_once_at_every_vcpu() {
    let mut machine = machine(2);
    for cpu in 0..2 {
        for lpi in FIRST..=0xffff {
            assert_eq!(ring(&machine, cpu, lpi), Delivery::Pending);
        }
    }
    for cpu in 0..2 {
        let mut taken = vec![false; 0x1_0000];
        for _ in FIRST..=0xffff {
            let intid = machine.acknowledge(cpu);
            machine.end(cpu, intid);
            assert!(
                !std::mem::replace(&mut taken[usize::try_from(intid).unwrap()], true),
                "{intid} twice"
            );
        }
        assert_eq!(machine.acknowledge(cpu), SPURIOUS);
    }
}

#[test]
fn restored_direct_lpis_are_delivered() {
    let mut source = machine(2);
    for lpi in (FIRST..=0xffff).step_by(100) {
        assert_eq!(ring(&source, 1, lpi), Delivery::Pending);
    }
    let saved = source.save();
    let mut target = Machine::over(source.gic.config().clone(), source.ram.clone());
    target.restore(&saved);
    assert!(target.save() == saved);
    for _ in (FIRST..=0xffff).step_by(100) {
        let intid = target.acknowledge(1);
        assert!(intid >= u64::from(FIRST) && (intid - u64::from(FIRST)).is_multiple_of(100));
        target.end(1, intid);
    }
    for (cpu, lpi) in [(0, FIRST + 1), (1, 0xfffe)] {
        assert!(delivered(&mut target, cpu, lpi), "the LPI was not pending in the saved state");
    }
}
