//! Tests with a boot CPU that is not the first CPU in the description.

use crate::machine::{CPU0, CPU1, Machine, function};
use gic_bringup::CpuError;
use irq_domain::WiredRequest;
use msi_types::{HwIrq, Level, Line, Shape, Trigger};

const SPI: u32 = 40;

#[test]
fn the_boot_cpu_is_cpu_0_at_any_position_in_the_description() {
    let machine = Machine::new().with_cpus_in_reverse();
    let chip = machine.boot();
    let described: Vec<_> =
        chip.description().enabled_cpus().map(|cpu| cpu.affinity.value).collect();
    assert_eq!([chip.affinity(CPU1), chip.affinity(CPU0)].map(Option::unwrap), described[..]);
    assert_eq!(chip.cpu_with(described[1]), Some(CPU0));
    let (device, messages) = function(&chip);
    device.allocate(Shape::Independent, 2..=2).unwrap();
    let handles = [0, 1].map(|slot| device.request(slot, "queue", |_| {}).unwrap());
    handles[0].set_affinity(CPU0).unwrap();
    handles[1].set_affinity(CPU1).unwrap();
    machine.send(&messages, 0);
    assert!(machine.wants(CPU0) && !machine.wants(CPU1));
    machine.send(&messages, 1);
    assert!(machine.wants(CPU1));
    machine.settle(&chip);
    assert_eq!(handles.map(|handle| handle.count()), [1, 1]);
}

#[test]
fn a_boot_cpu_keeps_its_kernel_number() {
    let machine = Machine::new();
    let chip = machine.execute_task(CPU1, || machine.bring_up()).unwrap();
    assert!(chip.interrupts().is_online(CPU1) && !chip.interrupts().is_online(CPU0));
    machine.execute(CPU1, |registers| chip.cpu_on(CPU1, registers, |_| unreachable!())).unwrap();
    let request = WiredRequest::new(HwIrq::new(SPI), Trigger::Edge, "uart");
    let handle = chip.interrupts().request_wired(request, |_| {}).unwrap();
    machine.set_line(Line::Spi(SPI), Level::High);
    assert!(machine.wants(CPU1));
    machine.settle(&chip);
    assert_eq!(handle.count(), 1);
}

#[test]
fn cpu_on_refuses_to_run_on_another_cpu() {
    let machine = Machine::new();
    let chip = machine.bring_up().unwrap();
    let [expected, found] = [CPU1, CPU0].map(|cpu| chip.affinity(cpu).unwrap());
    let refused = machine.execute(CPU0, |registers| chip.cpu_on(CPU1, registers, |_| ()));
    assert_eq!(refused, Err(CpuError::OtherCpu { expected, found }));
}
