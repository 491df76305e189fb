//! Handler results, spurious interrupts, and handlers that start disabled.

use crate::mock::{Addressing, Machine, StoreKind, in_hard_irq, take_spurious};
use irq_domain::{Dispatched, IrqHandle, IrqReturn, Start, Unhandled, WiredRequest};
use msi_types::{Cpu, HwIrq, Trigger};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const LINE_INPUT: HwIrq = HwIrq::new(33);
const LINE: WiredRequest<'static> = WiredRequest::new(LINE_INPUT, Trigger::Level, "line");

/// Requests a line whose handler returns `Handled` while the flag is set, and `None` otherwise.
fn line(machine: &Machine) -> (IrqHandle, Arc<AtomicBool>) {
    let mine = Arc::new(AtomicBool::new(false));
    let says = mine.clone();
    let handler = move |_: &irq_domain::IrqContext<'_>| {
        if says.load(Relaxed) { IrqReturn::Handled } else { IrqReturn::None }
    };
    (machine.interrupts.request_wired(LINE, handler).unwrap(), mine)
}

fn arrive(machine: &Machine, times: u32) -> Dispatched {
    let mut last = Dispatched::Handled;
    in_hard_irq(0, || {
        for _ in 0..times {
            last = machine.interrupts.dispatch(Cpu::new(0), LINE_INPUT);
        }
    });
    last
}

#[test]
fn a_verdict_is_the_answer_of_dispatch() {
    let machine = Machine::new(Addressing::Stays);
    let (handle, mine) = line(&machine);
    assert_eq!(arrive(&machine, 1), Dispatched::Unhandled(Unhandled::IrqNone));
    mine.store(true, Relaxed);
    assert_eq!(arrive(&machine, 1), Dispatched::Handled);
    let info = machine.interrupts.irq_info(handle.irq()).unwrap().unwrap();
    assert_eq!((info.unhandled, handle.count()), (1, 2));
    let mut text = String::new();
    machine.interrupts.describe(handle.irq(), &mut text).unwrap();
    assert!(text.contains("2 runs, 0 redelivered, 1 unhandled"), "{text}");
}

#[test]
fn a_spurious_line_is_shut_off_once() {
    let machine = Machine::new(Addressing::Stays);
    let (handle, _) = line(&machine);
    arrive(&machine, 99_900);
    assert_eq!((take_spurious(), machine.root.line(33).unwrap().masked), (None, false));
    arrive(&machine, 1);
    assert_eq!(
        (take_spurious(), machine.root.line(33).unwrap().masked),
        (Some(handle.irq()), true)
    );
    assert!(!machine.interrupts.irq_info(handle.irq()).unwrap().unwrap().enabled);
    arrive(&machine, 1);
    assert_eq!((handle.count(), take_spurious()), (99_901, None));
}

#[test]
fn a_line_that_was_shut_off_is_enabled_again() {
    let machine = Machine::new(Addressing::Stays);
    let (handle, mine) = line(&machine);
    arrive(&machine, 99_901);
    mine.store(true, Relaxed);
    handle.enable();
    assert!(!machine.root.line(33).unwrap().masked);
    assert_eq!(arrive(&machine, 1), Dispatched::Handled);
}

#[test]
fn a_line_with_an_active_device_stays_enabled() {
    let machine = Machine::new(Addressing::Stays);
    let (handle, mine) = line(&machine);
    for _ in 0..500 {
        mine.store(false, Relaxed);
        arrive(&machine, 998);
        mine.store(true, Relaxed);
        arrive(&machine, 2);
    }
    assert_eq!((handle.count(), take_spurious()), (500_000, None));
}

#[test]
fn a_line_is_spurious_whatever_it_did_before() {
    let machine = Machine::new(Addressing::Stays);
    let (handle, mine) = line(&machine);
    mine.store(true, Relaxed);
    arrive(&machine, 150_000);
    mine.store(false, Relaxed);
    arrive(&machine, 200_000);
    assert_eq!(take_spurious(), Some(handle.irq()));
}

#[test]
fn a_private_interrupt_is_not_shut_off() {
    let machine = Machine::new(Addressing::Stays);
    let hwirq = HwIrq::new(27);
    let private =
        machine.interrupts.request_per_cpu(hwirq, Trigger::Level, "timer", |_| IrqReturn::None);
    let private = private.unwrap();
    in_hard_irq(0, || {
        private.enable_here();
        for _ in 0..100_000 {
            machine.interrupts.dispatch(Cpu::new(0), hwirq);
        }
    });
    assert_eq!((private.count(), take_spurious()), (100_000, None));
}

#[test]
fn a_line_that_gave_up_is_not_reported() {
    let machine = Machine::new(Addressing::Stays);
    let own = Arc::new(Mutex::new(None::<IrqHandle>));
    let mine = own.clone();
    let handler = move |_: &irq_domain::IrqContext<'_>| {
        let mut own = mine.lock().unwrap();
        if own.as_ref().unwrap().count() > 99_900 {
            drop(own.take());
        }
        IrqReturn::None
    };
    *own.lock().unwrap() = Some(machine.interrupts.request_wired(LINE, handler).unwrap());
    arrive(&machine, 99_901);
    assert!(own.lock().unwrap().is_none());
    assert_eq!(take_spurious(), None);
    machine.interrupts.reclaim();
}

#[test]
fn a_spurious_device_is_masked_at_its_endpoint() {
    let machine = Machine::new(Addressing::Stays);
    let store = machine.store(StoreKind::MSIX);
    let device = machine.attach(&store);
    device.allocate_at(&[0]).unwrap();
    let handle = device.request(0, "test", |_| IrqReturn::None).unwrap();
    for _ in 0..99_901 {
        store.fire(0);
        machine.settle();
    }
    assert!(store.is_masked(0));
    assert_eq!(take_spurious(), Some(handle.irq()));
}

#[test]
fn a_handler_started_disabled_waits_for_enable() {
    for kind in [StoreKind::MSIX, StoreKind::SLOW, StoreKind { group: false, ..StoreKind::MSI }] {
        let machine = Machine::new(Addressing::Stays);
        let store = machine.store(kind);
        let device = machine.attach(&store);
        device.allocate_at(&[0]).unwrap();
        let handle = device.request_disabled(0, "test", |_| {}).unwrap();
        store.fire(0);
        machine.settle();
        assert_eq!(handle.count(), 0, "{kind:?}");
        handle.enable();
        machine.settle();
        assert_eq!(handle.count(), 1, "{kind:?}");
    }
}

#[test]
fn a_line_started_disabled_is_masked() {
    let machine = Machine::new(Addressing::Stays);
    let request = LINE.with_start(Start::Disabled);
    let handle = machine.interrupts.request_wired(request, |_| {}).unwrap();
    assert!(machine.root.line(33).unwrap().masked);
    handle.enable();
    assert!(!machine.root.line(33).unwrap().masked);
}
