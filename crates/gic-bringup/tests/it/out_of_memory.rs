//! Out-of-memory tests: every call must report the exhausted heap as an error and undo any partial
//! work.

use crate::machine::{CPU0, CPU1, Chip, Machine, function};
use doorbell_test_support::{after_failures, outside, with_allocations};
use msi_types::Shape;

/// Brings up all drivers. Fails with the message of the first error; a refused controller counts as
/// an error.
fn complete(machine: &Machine) -> Result<Chip, String> {
    let chip = machine.bring_up().map_err(|error| outside(|| error.to_string()))?;
    let refused = chip.refused().next().map(|(_, error)| outside(|| error.to_string()));
    refused.map_or(Ok(chip), Err)
}

#[test]
fn a_bring_up_without_heap_leaves_hardware_untouched() {
    let machine = Machine::new();
    let chip = after_failures(
        20,
        || complete(&machine),
        |error| {
            assert!(error.contains("memory"), "{error}");
            machine.assert_untouched();
        },
    );
    for cpu in chip.cpus() {
        machine.execute(cpu, |registers| chip.cpu_on(cpu, registers, |_| unreachable!())).unwrap();
    }
    let (device, messages) = function(&chip);
    device.allocate(Shape::Independent, 1..=1).unwrap();
    let handle = device.request(0, "queue", |_| {}).unwrap();
    machine.send(&messages, 0);
    machine.settle(&chip);
    assert_eq!(handle.count(), 1);
}

#[test]
fn cpu_on_allocates_no_heap() {
    let machine = Machine::new();
    let chip = machine.bring_up().unwrap();
    for cpu in chip.cpus() {
        machine.execute(cpu, |registers| {
            with_allocations(0, || chip.cpu_on(cpu, registers, |_| unreachable!())).unwrap();
        });
    }
}

#[test]
fn cpu_off_allocates_no_heap() {
    let machine = Machine::new();
    let chip = machine.boot();
    let (device, messages) = function(&chip);
    device.allocate(Shape::Independent, 1..=1).unwrap();
    let handle = device.request(0, "queue", |_| {}).unwrap();
    handle.set_affinity(CPU1).unwrap();
    machine.execute(CPU1, |registers| {
        with_allocations(0, || chip.cpu_off(CPU1, CPU0, registers, |_| unreachable!())).unwrap();
    });
    machine.send(&messages, 0);
    assert!(machine.wants(CPU0));
    machine.settle(&chip);
    assert_eq!(handle.count(), 1);
}
