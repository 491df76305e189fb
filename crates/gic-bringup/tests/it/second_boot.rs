//! Tests for kexec: the kernel starts while a previous kernel's interrupt controllers are still
//! enabled.

use crate::machine::{CPU0, CPU1, Chip, ITS, Machine, function};
use gic_arch::{Affinity, gicr, gits};
use gic_bringup::{ControllerError, Irqchip, Options};
use gic_driver::its::{IfEnabled, ProbeError};
use gic_driver::{GicPlatform, ItsConfig, MmioExt};
use gic_firmware::{Controller, Description};
use irq_domain::{Host, IrqHandle};
use msi_types::Shape;
use std::sync::Arc;

/// Runs a kernel that leaves all interrupt controllers enabled and an LPI pending at each CPU.
fn first_kernel(machine: &Machine) {
    let chip = machine.boot();
    let (device, messages) = function(&chip);
    device.allocate(Shape::Independent, 2..=2).unwrap();
    let handles = [0, 1].map(|slot| device.request(slot, "old", |_| {}).unwrap());
    handles[1].set_affinity(CPU1).unwrap();
    machine.send(&messages, 0);
    machine.send(&messages, 1);
    assert!(machine.wants(CPU0) && machine.wants(CPU1));
    std::mem::forget((chip, device, handles));
}

/// Checks that the next kernel handles only messages from its own device.
fn assert_messages_arrive(machine: &Machine, chip: &Chip) {
    let (device, messages) = function(chip);
    device.allocate(Shape::Independent, 2..=2).unwrap();
    let handles = [0, 1].map(|slot| device.request(slot, "new", |_| {}).unwrap());
    handles[1].set_affinity(CPU1).unwrap();
    machine.settle(chip);
    assert_eq!(handles.each_ref().map(IrqHandle::count), [0, 0], "messages of the previous kernel");
    machine.send(&messages, 0);
    machine.send(&messages, 1);
    machine.settle(chip);
    assert_eq!(handles.each_ref().map(IrqHandle::count), [1, 1]);
}

#[test]
fn an_enabled_its_is_taken_over() {
    let machine = Machine::new();
    first_kernel(&machine);
    let chip = machine.boot();
    assert_eq!(chip.refused().next(), None);
    assert_messages_arrive(&machine, &chip);
}

#[test]
fn an_enabled_its_is_quiescent_before_allocations() {
    let machine = Machine::new();
    first_kernel(&machine);
    let _of_the_first_kernel = machine.take_its_at_allocations();
    let _chip = machine.bring_up().unwrap();
    let enabled = machine.take_its_at_allocations();
    assert!(!enabled.is_empty() && !enabled.contains(&true), "{enabled:?}");
}

#[test]
fn lpis_that_stay_enabled_keep_their_tables() {
    let machine = Machine::with_lpis_that_stay_enabled();
    first_kernel(&machine);
    let tables =
        || [CPU0, CPU1].map(|cpu| machine.redistributor(cpu).read(gicr::PENDBASER).address());
    let before = tables();
    let chip = machine.boot();
    assert_eq!(tables(), before);
    assert_eq!(chip.refused().next(), None);
    assert!(chip.gic().v3().unwrap().lpis().unwrap().were_adopted());
    assert_messages_arrive(&machine, &chip);
}

#[test]
fn the_caller_may_refuse_an_enabled_its() {
    let machine = Machine::new();
    first_kernel(&machine);
    let refuse = |_: &Controller, config: ItsConfig| config.with_if_enabled(IfEnabled::Refuse);
    let chip = machine.bring_up_with(&Options::default().with_its(&refuse)).unwrap();
    let refused: Vec<_> = chip.refused().map(|(_, error)| error).collect();
    let enabled = ProbeError::AlreadyEnabled(ITS);
    assert_eq!(refused, [ControllerError::Its(enabled)]);
    assert!(machine.its().read(gits::CTLR).enabled(), "the ITS is left as it is");
}

#[test]
fn the_caller_configures_each_its() {
    let machine = Machine::new();
    let narrow = |controller: &Controller, config: ItsConfig| {
        assert_eq!(controller.registers.as_ref().map(|frames| frames.base()), Some(config.base()));
        config.with_queue_bytes(0x2000)
    };
    let chip = machine.bring_up_with(&Options::default().with_its(&narrow)).unwrap();
    assert_eq!(chip.refused().next(), None);
    assert_eq!(machine.its().read(gits::CBASER).bytes(), 0x2000);
}

#[test]
fn an_arc_forwards_every_platform_method() {
    fn bring_up<K: GicPlatform + Host + 'static>(
        kernel: K,
        description: Arc<Description>,
    ) -> Irqchip<K> {
        let kernel = Arc::new(kernel);
        Irqchip::new(kernel.clone(), kernel, description).unwrap()
    }
    let machine = Machine::with_lpis_that_stay_enabled().with_cpus_in_reverse();
    first_kernel(&machine);
    let chip = bring_up(machine.kernel.clone(), machine.description());
    assert_eq!(chip.refused().next(), None);
    assert!(chip.gic().v3().unwrap().lpis().unwrap().were_adopted(), "through its `adopt_table`");
    assert_eq!(chip.affinity(CPU0), Some(Affinity::new(0, 0, 0, 0)), "through its `affinity`");
    machine.execute(CPU0, |own| chip.cpu_on(CPU0, own, |_| unreachable!())).unwrap();
    assert!(chip.gic().is_on(CPU0));
}
