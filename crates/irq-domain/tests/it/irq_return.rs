//! Handler results, spurious interrupts, and handlers that start disabled.

use crate::mock::{Addressing, Machine, StoreKind, attached, in_hard_irq, take_spurious};
use irq_domain::{Dispatched, IrqHandle, IrqReturn, Start, Unhandled, WiredRequest};
use msi_types::{Cpu, HwIrq, Trigger};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const LINE_INPUT: HwIrq = HwIrq::new(33);
const LINE: WiredRequest<'static> = WiredRequest::new(LINE_INPUT, Trigger::Level, "line");

/// Requests a line whose handler returns `Handled` while the flag is set, and `None` otherwise.
fn line() -> (Machine, IrqHandle, Arc<AtomicBool>) {
    let machine = Machine::new(Addressing::Stays);
    let mine = Arc::new(AtomicBool::new(false));
    let says = mine.clone();
    let handler = move |_: &irq_domain::IrqContext<'_>| {
        if says.load(Relaxed) { IrqReturn::Handled } else { IrqReturn::None }
    };
    let handle = machine.interrupts.request_wired(LINE, handler).unwrap();
    (machine, handle, mine)
}

fn arrive(machine: &Machine, times: u32) -> Dispatched {
    for _ in 1..times {
        machine.dispatch(0, LINE_INPUT);
    }
    machine.dispatch(0, LINE_INPUT)
}

#[test]
fn dispatch_returns_whether_the_handler_claimed_the_interrupt() {
    let (machine, handle, mine) = line();
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
fn a_spurious_line_is_reported_once_and_stays_masked_until_enabled() {
    let (machine, handle, mine) = line();
    arrive(&machine, 99_900);
    let shut_off = || (take_spurious(), machine.root.line(33).unwrap().masked);
    assert_eq!(shut_off(), (None, false));
    arrive(&machine, 1);
    assert_eq!(shut_off(), (Some(handle.irq()), true));
    assert!(!machine.interrupts.irq_info(handle.irq()).unwrap().unwrap().enabled);
    arrive(&machine, 1);
    assert_eq!((handle.count(), take_spurious()), (99_901, None));
    mine.store(true, Relaxed);
    handle.enable();
    assert!(!machine.root.line(33).unwrap().masked);
    assert_eq!(arrive(&machine, 1), Dispatched::Handled);
}

#[test]
fn a_line_with_an_active_device_stays_enabled() {
    let (machine, handle, mine) = line();
    for _ in 0..500 {
        mine.store(false, Relaxed);
        arrive(&machine, 998);
        mine.store(true, Relaxed);
        arrive(&machine, 2);
    }
    assert_eq!((handle.count(), take_spurious()), (500_000, None));
}

#[test]
fn a_private_interrupt_is_not_disabled_as_spurious() {
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
fn a_dropped_line_is_not_reported_as_spurious() {
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
fn a_handler_started_disabled_waits_for_enable() {
    for kind in [StoreKind::MSIX, StoreKind::SLOW, StoreKind { group: false, ..StoreKind::MSI }] {
        let (machine, store, device) = attached(Addressing::Stays, kind, 1);
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
