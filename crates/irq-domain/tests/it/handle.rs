//! Dropping handles and devices, in every context.

use crate::mock::{Addressing, LongHandler, Machine, StoreKind, attached, in_hard_irq, requested};
use irq_domain::{Dispatched, Irq, IrqHandle, MsiDevice, RequestError, Unhandled};
use msi_types::{Cpu, HwIrq, Pending};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};

/// A value owned by a handler, which records on drop that the handler was freed.
struct Freed(Arc<AtomicBool>);

impl Drop for Freed {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn dropping_a_handle_frees_its_handler() {
    let (_machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 1);
    let freed = Arc::new(AtomicBool::new(false));
    let witness = Freed(freed.clone());
    drop(device.request(0, "test", move |_| _ = &witness).unwrap());
    assert!(freed.load(Ordering::SeqCst));
}

#[test]
fn disable_and_wait_returns_after_the_handler() {
    let (machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 1);
    let (long, run) = LongHandler::new();
    let handle = device.request(0, "test", move |_| run()).unwrap();
    assert!(long.awaited_by(&machine, handle.hwirq(), || handle.disable_and_wait()));
}

/// Requests a handler that drops its own handle in its first run.
fn drops_itself() -> (Machine, MsiDevice, Irq, HwIrq, Arc<AtomicBool>) {
    let (machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 1);
    let freed = Arc::new(AtomicBool::new(false));
    let own = Arc::new(Mutex::new(None::<IrqHandle>));
    let (mine, witness) = (own.clone(), Freed(freed.clone()));
    let handle = device
        .request(0, "test", move |_| {
            drop(mine.lock().unwrap().take());
            assert!(!witness.0.load(Ordering::SeqCst), "freed while it runs");
        })
        .unwrap();
    let (irq, hwirq) = (handle.irq(), handle.hwirq());
    *own.lock().unwrap() = Some(handle);
    assert_eq!(machine.dispatch(2, hwirq), Dispatched::Handled);
    (machine, device, irq, hwirq, freed)
}

#[test]
fn a_self_dropped_handler_does_not_run_again_and_is_freed_in_a_task() {
    let (machine, _device, _, hwirq, freed) = drops_itself();
    let again = machine.interrupts.dispatch(Cpu::new(0), hwirq);
    assert_eq!(again, Dispatched::Unhandled(Unhandled::Released));
    assert!(!freed.load(Ordering::SeqCst), "freed in hard-IRQ context");
    machine.interrupts.reclaim();
    assert!(freed.load(Ordering::SeqCst));
}

#[test]
fn a_self_dropped_vector_can_be_requested_again() {
    let (machine, device, irq, _, freed) = drops_itself();
    let handle = device.request(0, "again", |_| {}).unwrap();
    assert!(freed.load(Ordering::SeqCst));
    assert_eq!(handle.irq(), irq);
    assert_eq!(machine.interrupts.dispatch(Cpu::new(0), handle.hwirq()), Dispatched::Handled);
}

#[test]
fn a_task_releases_a_wired_input_dropped_by_its_own_handler() {
    let machine = Machine::new(Addressing::Stays);
    let own = Arc::new(Mutex::new(None::<IrqHandle>));
    let mine = own.clone();
    let hwirq = HwIrq::new(50);
    let request = irq_domain::WiredRequest::new(hwirq, msi_types::Trigger::Edge, "button");
    let drop_it = move |_: &irq_domain::IrqContext<'_>| drop(mine.lock().unwrap().take());
    let handle = machine.interrupts.request_wired(request, drop_it).unwrap();
    *own.lock().unwrap() = Some(handle);
    machine.dispatch(0, hwirq);
    assert!(machine.root.line(50).unwrap().masked);
    machine.interrupts.reclaim();
    assert_eq!(machine.root.line(50), None);
}

#[test]
fn handlers_may_drop_each_others_handles() {
    let (machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 2);
    let handles = Arc::new([const { Mutex::new(None::<IrqHandle>) }; 2]);
    let both_inside = Arc::new(Barrier::new(2));
    for slot in 0..2 {
        let (others, inside) = (handles.clone(), both_inside.clone());
        let handle = device
            .request(slot, "test", move |_| {
                inside.wait();
                drop(others[usize::from(1 - slot)].lock().unwrap().take());
            })
            .unwrap();
        *handles[usize::from(slot)].lock().unwrap() = Some(handle);
    }
    let cpus: Vec<_> = (0..2u16)
        .map(|cpu| {
            let interrupts = machine.interrupts.clone();
            let hwirq = device.vectors().unwrap()[usize::from(cpu)].hwirq;
            let cpu = u32::from(cpu);
            std::thread::spawn(move || {
                in_hard_irq(cpu, || interrupts.dispatch(Cpu::new(cpu), hwirq))
            })
        })
        .collect();
    for cpu in cpus {
        assert_eq!(cpu.join().unwrap(), Dispatched::Handled);
    }
    drop(device);
    assert_eq!(machine.controller.vectors_in_use(), 0);
}

#[test]
fn a_task_tears_down_a_self_dropped_device() {
    let (machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 1);
    let own = Arc::new(Mutex::new(None));
    let mine = own.clone();
    let handle = device.request(0, "test", move |_| drop(mine.lock().unwrap().take())).unwrap();
    let hwirq = handle.hwirq();
    *own.lock().unwrap() = Some((device, handle));
    machine.dispatch(0, hwirq);
    assert_eq!(machine.controller.vectors_in_use(), 1, "torn down in hard-IRQ context");
    machine.interrupts.reclaim();
    assert_eq!(machine.controller.in_use(), (0, 0));
    assert!(machine.interrupts.snapshot().unwrap().is_empty());
}

#[test]
fn tear_down_waits_for_a_self_dropping_handler() {
    let (machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 1);
    let own = Arc::new(Mutex::new(None::<IrqHandle>));
    let (mine, (long, run)) = (own.clone(), LongHandler::new());
    let handler = move |_: &irq_domain::IrqContext<'_>| {
        drop(mine.lock().unwrap().take());
        run();
    };
    let handle = device.request(0, "test", handler).unwrap();
    let hwirq = handle.hwirq();
    *own.lock().unwrap() = Some(handle);
    assert!(long.awaited_by(&machine, hwirq, || drop(device)));
}

#[test]
fn a_handle_without_its_device_is_inert() {
    let (machine, _, first) = attached(Addressing::Stays, StoreKind::MSIX, 1);
    let stale = first.request(0, "first", |_| -> () { panic!("ran") }).unwrap();
    drop(first);
    let second = machine.attach(&machine.store(StoreKind::MSIX));
    second.allocate_at(&[0]).unwrap();
    let fresh = second.request(0, "second", |_| {}).unwrap();
    assert_eq!(stale.hwirq(), fresh.hwirq());
    stale.disable();
    stale.set_pending(Pending::Set);
    assert_eq!(machine.controller.pending_at(), []);
    assert!(stale.set_affinity(Cpu::new(3)).is_err());
    drop(stale);
    assert_eq!(machine.interrupts.dispatch(Cpu::new(0), fresh.hwirq()), Dispatched::Handled);
    assert_eq!(fresh.count(), 1);
}

#[test]
fn a_request_needs_a_vector_without_a_handler() {
    let (_machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 1);
    let first = device.request(0, "first", |_| {}).unwrap();
    let second = device.request(0, "second", |_| {});
    assert_eq!(second.err(), Some(RequestError::InUse(first.hwirq())));
    assert_eq!(device.request(1, "test", |_| {}).err(), Some(RequestError::NoVector(1)));
}

#[test]
fn setting_pending_runs_the_handler_unless_cleared() {
    let (machine, _, _device, handle) = requested(Addressing::NamesCpu, StoreKind::MSIX);
    handle.set_pending(Pending::Set);
    machine.settle();
    assert_eq!(handle.count(), 1);
    handle.set_pending(Pending::Set);
    handle.set_pending(Pending::Clear);
    machine.settle();
    assert_eq!(handle.count(), 1);
}

#[test]
fn a_message_sent_while_masked_is_reported_as_pending() {
    let (_machine, store, _device, handle) = requested(Addressing::Stays, StoreKind::MSIX);
    handle.disable();
    store.fire(0);
    assert_eq!(handle.is_pending(), Some(true));
    handle.enable();
    assert_eq!(handle.is_pending(), None, "the controller cannot be asked");
}
