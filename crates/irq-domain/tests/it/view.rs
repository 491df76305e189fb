//! Descriptions and snapshots.

use crate::mock::{Addressing, Machine, StoreKind, attached};
use irq_domain::{EffectiveAffinity, Flow, Irq, WiredRequest};
use msi_types::{Cpu, HwIrq, Shape, Trigger};

fn describe(machine: &Machine, irq: Irq) -> String {
    let mut out = String::new();
    machine.interrupts.describe(irq, &mut out).unwrap();
    out
}

#[test]
fn describe_names_every_level_of_an_msi() {
    let (machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 2);
    let handle = device.request(1, "queue-1", |_| {}).unwrap();
    machine.interrupts.dispatch(Cpu::new(1), handle.hwirq());
    assert_eq!(
        describe(&machine, handle.irq()),
        "irq 1: queue-1, edge, cpu 1, enabled, 1 runs, 0 redelivered\n  \
         device device: requester 0x0100, slot 1, address 0x8090040, data 0x2001, \
         can be masked at the endpoint, \
         not isolated: any bus master can trigger any interrupt at mock\n  \
         mock controller: vector 8193\n"
    );
}

#[test]
fn describe_lists_a_single_level_for_a_root_interrupt() {
    let machine = Machine::new(Addressing::Stays);
    let (interrupts, level) = (&machine.interrupts, Trigger::Level);
    let request = WiredRequest::new(HwIrq::new(33), level, "uart");
    let uart = interrupts.request_wired(request, |_| {}).unwrap();
    uart.disable();
    let timer = interrupts.request_per_cpu(HwIrq::new(27), level, "timer", |_| {}).unwrap();
    assert_eq!(
        describe(&machine, uart.irq()),
        "irq 0: uart, level, cpu 0, disabled, 0 runs, 0 redelivered\n  root: wired vector 33\n"
    );
    assert_eq!(
        describe(&machine, timer.irq()),
        "irq 1: timer, per-cpu, disabled, 0 runs, 0 redelivered\n  root: private vector 27\n"
    );
}

#[test]
fn describe_says_that_an_unknown_interrupt_does_not_exist() {
    let machine = Machine::new(Addressing::Stays);
    assert_eq!(describe(&machine, Irq::new(7)), "irq 7: does not exist\n");
}

#[test]
fn the_snapshot_counts_runs_by_cpu() {
    let (machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 2);
    let handle = device.request(0, "queue-0", |_| {}).unwrap();
    for cpu in [0, 2, 2] {
        machine.interrupts.dispatch(Cpu::new(cpu), handle.hwirq());
    }
    let snapshot = machine.interrupts.snapshot().unwrap();
    assert_eq!(snapshot.len(), 2);
    let first = &snapshot[0];
    assert_eq!((first.irq, first.hwirq, first.flow), (handle.irq(), handle.hwirq(), Flow::Edge));
    assert_eq!((first.name.as_deref(), first.enabled), (Some("queue-0"), true));
    assert_eq!(first.affinity, EffectiveAffinity::Cpu(handle.effective_affinity()));
    assert_eq!(first.counts, [1, 0, 2, 0]);
    let second = &snapshot[1];
    assert_eq!((second.name.as_deref(), second.enabled), (None, false));
    assert_eq!(second.slot.as_ref().map(|(device, slot)| (&**device, *slot)), Some(("device", 1)));
}

#[test]
fn the_debug_output_of_a_device_lists_its_first_vectors() {
    let machine = Machine::new(Addressing::Stays);
    let device = machine.attach(&machine.store(StoreKind { slots: 64, ..StoreKind::MSIX }));
    device.allocate(Shape::Independent, 64..=64).unwrap();
    let handle = device.request(0, "queue", |_| {}).unwrap();
    machine.interrupts.dispatch(Cpu::new(0), handle.hwirq());
    let text = format!("{device:#?}");
    assert_eq!(
        text.lines().take(5).collect::<Vec<_>>(),
        [
            "MsiDevice {",
            "    name: \"device\",",
            "    requester: RequesterId(0x0100),",
            "    vectors: [",
            "        slot 0: irq 0, hwirq 8192 at CPU 0, 1 runs,",
        ]
    );
    assert!(text.contains("        and 56 more,"), "{text}");
    assert!(text.lines().count() < 25, "{text}");
    let masked = crate::mock::in_hard_irq(0, || format!("{device:?}"));
    assert!(masked.ends_with(", .. }"), "{masked}");
}
