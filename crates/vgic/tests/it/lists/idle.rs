//! Tests that vCPUs which enter repeatedly with empty list registers pick up changes made in
//! between.

use super::its::Translated;
use doorbell_test_support::guest::{Machine, listed, vtr};
use gic_arch::ich::ListRegisterState::{Active, Pending};
use gic_arch::{gicd, icc};
use msi_types::{Line, SetLine};
use vgic::{ListRegisterVcpu, VgicConfig};

const SPI: u32 = 40;

fn machine() -> Machine {
    let machine = Machine::running(VgicConfig::new(1));
    machine.enable_spi(SPI);
    machine
}

/// Returns a vCPU that has entered its guest and exited twice without an interrupt.
fn idle(machine: &mut Machine) -> ListRegisterVcpu {
    unchanged(unchanged(machine.list_register_vcpu()))
}

/// Enters the guest, and exits with the loaded state unchanged.
fn unchanged(mut vcpu: ListRegisterVcpu) -> ListRegisterVcpu {
    let inside = vcpu.enter();
    let left = *inside.interface();
    inside.exit(&left);
    vcpu
}

#[test]
fn a_trapped_write_of_eoimode_sets_tc_at_the_next_entry() {
    let mut machine = machine();
    let vcpu = machine.vcpus.remove(0).with_list_registers(vtr(4, 5).with_tds(false)).unwrap();
    let mut vcpu = unchanged(unchanged(vcpu));

    let split = icc::Ctlr::new().with_eoi_mode(true);
    vcpu.write_sysreg(icc::CTLR.encoding(), split.into_bits()).unwrap();

    assert!(vcpu.enter().interface().hcr.tc());
}

#[test]
fn an_untrapped_write_of_eoimode_sets_tc_at_the_next_entry() {
    let mut machine = machine();
    let vcpu = machine.vcpus.remove(0).with_list_registers(vtr(4, 5).with_tds(false)).unwrap();
    let mut vcpu = unchanged(unchanged(vcpu));
    let inside = vcpu.enter();
    let mut left = *inside.interface();
    assert!(!left.hcr.tc());

    left.vmcr.set_veoim(true);
    inside.exit(&left);

    assert!(vcpu.enter().interface().hcr.tc());
}

#[test]
fn an_active_state_set_by_a_register_is_listed() {
    let mut machine = machine();
    let mut vcpu = idle(&mut machine);
    machine.set_bit(gicd::ISACTIVER, SPI);

    assert_eq!(listed(vcpu.enter().interface()), [(SPI, Active)]);
}

#[test]
fn a_trapped_acknowledgment_is_listed_as_active() {
    let mut machine = machine();
    machine.make_edge(SPI);
    let mut vcpu = idle(&mut machine);
    machine.gic.pulse(Line::Spi(SPI));
    for taken in [SPI, 1023] {
        assert_eq!(vcpu.read_sysreg(icc::IAR1.encoding()), Ok(taken.into()));
    }
    assert_eq!(listed(vcpu.enter().interface()), [(SPI, Active)]);
}

#[test]
fn a_trapped_sgi_to_its_own_vcpu_does_not_kick() {
    let mut machine = machine();
    machine.enable_private(0, 3);
    let mut vcpu = idle(&mut machine);
    let kicks = machine.kicks.of(0);

    let own = machine.gic.config().cpus[0].affinity;
    vcpu.write_sysreg(icc::SGI1R.encoding(), icc::Sgi::to(3, own).into_bits()).unwrap();

    assert_eq!(machine.kicks.of(0), kicks);
    assert_eq!(listed(vcpu.enter().interface()), [(3, Pending)]);
}

#[test]
fn a_paused_vcpu_that_was_idle_is_not_kicked() {
    let mut translated = Translated::new(1);
    let mut vcpu = idle(&mut translated.machine);
    let paused = vcpu.pause();

    translated.send(3);

    assert_eq!(translated.machine.kicks.of(0), 0);
    paused.resume();
    assert_eq!(listed(vcpu.enter().interface()), [(8195, Pending)]);
}

/// Disables a group. Returns `true` if `GICD_CTLR.RWP` shows that the write is complete.
fn disables_a_group(machine: &Machine) -> bool {
    machine.write_gicd(gicd::CTLR, gicd::Ctlr::new());
    !gicd::Ctlr::from(u32::try_from(machine.read_gicd(gicd::CTLR)).unwrap()).rwp()
}

#[test]
fn register_writes_do_not_wait_for_an_idle_vcpu() {
    let mut machine = machine();
    let vcpu = idle(&mut machine);
    assert!(disables_a_group(&machine), "outside");
    machine.write_gicd(gicd::CTLR, gicd::Ctlr::from(2));

    let mut vcpu = unchanged(vcpu);
    let _inside = vcpu.enter();

    assert!(disables_a_group(&machine), "the vCPU is in its guest");
}

#[test]
fn a_guest_that_changed_its_interface_exits_for_new_interrupts() {
    let mut machine = machine();
    let mut vcpu = idle(&mut machine);
    let mut inside = vcpu.enter();
    let vmcr = inside.interface().vmcr;
    machine.raise(SPI);

    assert!(!inside.list_arrivals(vmcr.with_veoim(true), u32::MAX));
    assert_eq!(listed(inside.interface()), []);
    assert!(inside.list_arrivals(vmcr, u32::MAX));
    assert_eq!(listed(inside.interface()), [(SPI, Pending)]);
    assert!(!inside.list_arrivals(vmcr, !1), "the interrupt has not ended");
}
