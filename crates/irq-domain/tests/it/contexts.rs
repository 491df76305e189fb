//! Calling contexts: hard IRQ within and outside of dispatch, tasks with interrupts masked, and
//! other tasks.

use crate::function::{Function, attach};
use crate::mock::{
    Addressing, Hotplug as _, Kernel, LongHandler, StoreKind, attached, in_hard_irq, on_wait,
    requested,
};
use irq_domain::pci::AccessContext;
use irq_domain::{Dispatched, IrqHandle, LocalCpu, WiredRequest};
use msi_types::pci::msi;
use msi_types::{Cpu, HwIrq, Shape, Trigger};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The handler runs on another CPU.
#[test]
fn a_drop_waits_for_the_handler_only_in_a_task() {
    let with_interrupts_saved = |handle| {
        let state = Kernel.irq_save();
        drop(handle);
        Kernel.irq_restore(state);
    };
    let cases: [(_, fn(IrqHandle), _); 3] = [
        ("in a task", drop, true),
        ("in another interrupt", |handle| in_hard_irq(0, || drop(handle)), false),
        ("with interrupts saved", with_interrupts_saved, false),
    ];
    for (context, drop_it, waits) in cases {
        let (machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 1);
        let (long, run) = LongHandler::new();
        let handle = device.request(0, "long", move |_| run()).unwrap();
        let waited = long.awaited_by(&machine, handle.hwirq(), || drop_it(handle));
        assert_eq!(waited, waits, "{context}");
    }
}

#[test]
fn an_inert_handle_frees_nothing_in_a_handler() {
    let (machine, _, first) = attached(Addressing::Stays, StoreKind::MSIX, 1);
    let inert = Mutex::new(Some(first.request(0, "gone", |_| {}).unwrap()));
    drop(first);
    let store = machine.store(StoreKind::MSIX);
    let second = machine.attach(&store);
    second.allocate_at(&[0]).unwrap();
    let handle = second.request(0, "dropper", move |_| drop(inert.lock().unwrap().take())).unwrap();
    // The first device's store, which only the inert handle still owns, panics if it is freed in
    // hard-IRQ context.
    store.fire(0);
    machine.settle();
    assert_eq!(handle.count(), 1);
    machine.interrupts.reclaim();
}

#[test]
fn a_task_tears_down_a_device_dropped_in_an_irq() {
    let (machine, _, device, handle) = requested(Addressing::Stays, StoreKind::MSIX);
    in_hard_irq(0, || {
        drop((device, handle));
        // In an interrupt, this frees nothing.
        machine.interrupts.reclaim();
    });
    assert_eq!(machine.controller.vectors_in_use(), 1, "torn down in hard-IRQ context");
    machine.interrupts.reclaim();
    assert_eq!(machine.controller.in_use(), (0, 0));
}

#[test]
fn a_handler_that_disables_itself_does_not_wait() {
    let (machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 1);
    let own = Arc::new(Mutex::new(None::<IrqHandle>));
    let mine = own.clone();
    let handler = move |_: &irq_domain::IrqContext<'_>| {
        mine.lock().unwrap().as_ref().unwrap().disable_and_wait();
    };
    let handle = device.request(0, "test", handler).unwrap();
    let hwirq = handle.hwirq();
    *own.lock().unwrap() = Some(handle);
    let dispatched = machine.dispatch(0, hwirq);
    assert_eq!(dispatched, Dispatched::Handled);
    let handle = own.lock().unwrap().take().unwrap();
    assert!(!machine.interrupts.irq_info(handle.irq()).unwrap().unwrap().enabled);
}

#[test]
fn mask_bits_that_need_task_context_are_not_written_in_an_interrupt() {
    let control =
        msi::Control::new().with_multiple_message_capable(2).with_per_vector_masking(true);
    let function = Function::with_msi(control, AccessContext::Task);
    let (machine, device) = attach(Addressing::Stays, Arc::new(function.msi_store().unwrap()));
    device.allocate(Shape::AlignedGroup, 4..=4).unwrap();
    let handle = device.request(1, "test", |_| {}).unwrap();
    in_hard_irq(2, || handle.disable());
    assert!(machine.controller.is_masked(handle.hwirq()));
    drop(handle);
    device.tear_down().unwrap();
}

/// A value owned by a handler. When the handler is freed, the value's `drop` calls the core and
/// acquires each of the core's locks.
struct CallsBack(irq_domain::Interrupts, Arc<AtomicBool>);

impl Drop for CallsBack {
    fn drop(&mut self) {
        self.0.offline(Cpu::new(3)).unwrap();
        let other = WiredRequest::new(HwIrq::new(60), Trigger::Edge, "other");
        drop(self.0.request_wired(other, |_| {}).unwrap());
        self.1.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_refused_handler_is_freed_while_no_lock_is_held() {
    let (machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 1);
    let hwirq = device.vectors().unwrap()[0].hwirq;
    let _owner = device.request(0, "owner", |_| {}).unwrap();
    let freed = Arc::new(AtomicBool::new(false));
    let owned = CallsBack(machine.interrupts.clone(), freed.clone());
    let request = WiredRequest::new(hwirq, Trigger::Edge, "refused");
    let refused = on_wait(
        || panic!("waits for a lock that it holds"),
        || machine.interrupts.request_wired(request, move |_| _ = &owned),
    );
    assert!(refused.is_err());
    assert!(freed.load(Ordering::SeqCst));
}

#[test]
fn a_request_frees_no_handler_under_its_locks() {
    let (machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 1);
    let own = Arc::new(Mutex::new(None::<IrqHandle>));
    let (mine, freed) = (own.clone(), Arc::new(AtomicBool::new(false)));
    let owned = CallsBack(machine.interrupts.clone(), freed.clone());
    let (long, run) = LongHandler::new();
    let handler = move |_: &irq_domain::IrqContext<'_>| {
        let _ = &owned;
        drop(mine.lock().unwrap().take());
        run();
    };
    let handle = device.request(0, "leaving", handler).unwrap();
    let hwirq = handle.hwirq();
    *own.lock().unwrap() = Some(handle);
    // The vector's handler is being removed, and the root has an input with the same number. A
    // request that waited for the handler and freed it under its locks would deadlock.
    long.awaited_by(&machine, hwirq, || {
        let request = WiredRequest::new(hwirq, Trigger::Edge, "same number");
        assert!(machine.interrupts.request_wired(request, |_| {}).is_err());
    });
    machine.interrupts.reclaim();
    assert!(freed.load(Ordering::SeqCst));
}
