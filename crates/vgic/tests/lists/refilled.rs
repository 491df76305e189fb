//! Tests of vCPUs that refill their list registers without an exit.

use super::its::Translated;
use crate::model::virtual_interface::vtr;
use doorbell_test_support::guest::{Machine, sync};
use gic_arch::ich::ListRegister;
use msi_types::{Level, Line, SetLine};
use vgic::{ListRegisterVcpu, VgicConfig};

const SPIS: [u32; 2] = [40, 41];
/// `ICH_ELRSR_EL2` of a guest that has ended all of its interrupts, and of one that has ended none.
const ALL: u16 = u16::MAX;
const NONE: u16 = 0;

/// Returns a machine with two SPIs, and a vCPU on a CPU with this number of list registers.
fn machine(registers: u8) -> (Machine, ListRegisterVcpu) {
    let mut machine = Machine::running(VgicConfig::new(1));
    for spi in SPIS {
        machine.enable_spi(spi);
    }
    let vcpu = machine.vcpus.remove(0).with_list_registers(vtr(registers, 5)).unwrap();
    (machine, vcpu)
}

fn raise(machine: &Machine, spis: &[u32]) {
    for spi in spis {
        machine.gic.set_line(Line::Spi(*spi), Level::High);
    }
}

#[test]
fn a_refill_adds_what_has_become_pending() {
    let (machine, mut vcpu) = machine(4);
    let mut inside = vcpu.enter();
    raise(&machine, &SPIS);

    assert!(inside.refill(ALL));

    let listed: Vec<_> = inside.interface().list.iter().map(ListRegister::virtual_intid).collect();
    assert_eq!((inside.used(), &listed[..3]), (2, &[40, 41, 0][..]));
}

#[test]
fn no_refill_replaces_interrupts_that_have_not_ended() {
    let (machine, mut vcpu) = machine(4);
    raise(&machine, &SPIS[..1]);
    let mut inside = vcpu.enter();
    raise(&machine, &SPIS[1..]);

    assert!(!inside.refill(NONE));

    assert_eq!(inside.used(), 1);
}

#[test]
fn interrupts_that_do_not_fit_wait_for_the_exit() {
    let (machine, mut vcpu) = machine(1);
    let mut inside = vcpu.enter();
    raise(&machine, &SPIS);

    assert!(!inside.refill(ALL));

    assert_eq!(inside.interface().list[0], ListRegister::new());
    let left = *inside.interface();
    inside.exit(&left);
    let inside = vcpu.enter();
    assert_eq!(inside.interface().list[0].virtual_intid(), SPIS[0]);
    assert!(inside.interface().hcr.npie(), "the other one waits");
}

#[test]
fn no_refill_leaves_work_undone() {
    let mut translated = Translated::configured(1, |mut config| {
        config.its[0] = config.its[0].with_work_per_access(1);
        config
    });
    let vcpu = translated.machine.vcpus.remove(0);
    let mut vcpu = vcpu.with_list_registers(vtr(4, 5)).unwrap();
    let mut inside = vcpu.enter();
    translated.run((0..8).map(|_| sync(0)));
    assert!(!translated.is_done());

    assert!(!inside.refill(ALL));
}
