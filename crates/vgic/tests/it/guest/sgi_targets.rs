//! Tests for the targets of SGIs sent through `ICC_SGI1R_EL1`, `ICC_SGI0R_EL1` and `ICC_ASGI1R_EL1`
//! (IHI 0069 §12.2), by affinity at every level and by group.

use doorbell_test_support::guest::Machine;
use gic_arch::icc::SysRegEncoding;
use gic_arch::{Affinity, IntId, gicr};
use vgic::SecurityView::{NonSecure, Single};
use vgic::{AccessWidth, SecurityView, VgicConfig};

const SGI0R: SysRegEncoding = SysRegEncoding::new(3, 0, 12, 11, 7);
const SGI1R: SysRegEncoding = SysRegEncoding::new(3, 0, 12, 11, 5);
const ASGI1R: SysRegEncoding = SysRegEncoding::new(3, 0, 12, 11, 6);

/// Affinities of the CPUs. Most affinities differ from 0.0.0.0 at a single level, and the Aff0
/// values are in several ranges of sixteen.
const AFFINITIES: [Affinity; 9] = [
    Affinity::new(0, 0, 0, 0),
    Affinity::new(0, 0, 0, 15),
    Affinity::new(0, 0, 0, 16),
    Affinity::new(0, 0, 0, 255),
    Affinity::new(0, 0, 1, 0),
    Affinity::new(0, 0, 255, 0),
    Affinity::new(0, 1, 0, 0),
    Affinity::new(1, 0, 0, 0),
    Affinity::new(255, 255, 255, 255),
];

fn machine(security: SecurityView) -> Machine {
    let secure = if security == NonSecure { vec![IntId::new(7)] } else { Vec::new() };
    let mut config = VgicConfig::new(9).with_security(security).with_secure_interrupts(secure);
    for (cpu, affinity) in config.cpus.iter_mut().zip(AFFINITIES) {
        cpu.affinity = affinity;
    }
    Machine::running(config)
}

/// Returns the CPUs at which the SGI is pending.
fn reached(machine: &Machine, sgi: u32) -> Vec<usize> {
    let pending = |cpu: &usize| {
        let address = machine.frame(*cpu) + u64::from(gicr::ISPENDR.offset());
        machine.read(address, AccessWidth::Word) >> sgi & 1 == 1
    };
    (0..AFFINITIES.len()).filter(pending).collect()
}

/// Encodes a register value with bit positions typed from the manual.
fn to(sgi: u64, affinity: Affinity) -> u64 {
    let [aff3, aff2, aff1, aff0] = affinity.levels().map(u64::from);
    aff3 << 48 | (aff0 / 16) << 44 | aff2 << 32 | sgi << 24 | aff1 << 16 | 1 << (aff0 % 16)
}

#[test]
fn an_sgi_reaches_only_the_cpu_with_its_target_affinity() {
    for (cpu, affinity) in AFFINITIES.into_iter().enumerate() {
        let mut machine = machine(Single);
        machine.msr(3, SGI1R, to(5, affinity));
        assert_eq!(reached(&machine, 5), [cpu], "{affinity:?}");
    }
}

#[test]
fn an_sgi_reaches_every_existing_cpu_of_its_target_list() {
    let mut machine = machine(Single);
    machine.msr(0, SGI1R, 5 << 24 | 0xffff);
    assert_eq!(reached(&machine, 5), [0, 1]);
    machine.msr(0, SGI1R, 1 << 44 | 6 << 24 | 0xffff);
    assert_eq!(reached(&machine, 6), [2]);
    machine.msr(0, SGI1R, 2 << 44 | 4 << 24 | 0xffff);
    assert!(reached(&machine, 4).is_empty());
}

#[test]
fn each_sgi_register_signals_only_interrupts_of_its_group() {
    for (register, group, reaches) in [
        (SGI1R, 1, true),
        (SGI1R, 0, false),
        (SGI0R, 0, true),
        (SGI0R, 1, false),
        (ASGI1R, 0, true),
        (ASGI1R, 1, false),
    ] {
        let mut machine = machine(Single);
        let groups = machine.frame(1) + u64::from(gicr::IGROUPR.offset());
        machine.write(groups, AccessWidth::Word, group << 5);

        machine.msr(0, register, to(5, AFFINITIES[1]));

        assert_eq!(reached(&machine, 5) == [1], reaches, "{register:?}, Group {group}");
    }
}

#[test]
fn a_non_secure_guest_can_send_only_non_secure_sgis() {
    for (register, sgi, reaches) in [
        (SGI1R, 5, true),
        (SGI1R, 7, false),
        (SGI0R, 7, false),
        (ASGI1R, 7, false),
        (ASGI1R, 5, false),
    ] {
        let mut machine = machine(NonSecure);
        machine.msr(0, register, to(sgi, AFFINITIES[1]));
        assert_eq!(
            !reached(&machine, u32::try_from(sgi).unwrap()).is_empty(),
            reaches,
            "{register:?} {sgi}"
        );
    }
}
