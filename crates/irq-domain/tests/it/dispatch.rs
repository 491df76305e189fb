//! Dispatch of arrivals: handled, deferred, sent again, or without a handler.

use crate::mock::{Addressing, FIRST, Machine, StoreKind, in_hard_irq, in_task, requested};
use irq_domain::{Deferral, Dispatched, IrqHandle, MsiDevice, Unhandled};
use msi_types::{Cpu, HwIrq, Shape, Trigger};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Attaches a device with one vector on CPU 0, and requests it with the given handler.
fn one_vector(
    machine: &Machine,
    handler: impl Fn(&irq_domain::IrqContext<'_>) + Send + Sync + 'static,
) -> (MsiDevice, IrqHandle) {
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    device.allocate(Shape::Independent, 1..=1).unwrap();
    let handle = device.request(0, "test", handler).unwrap();
    handle.set_affinity(Cpu::new(0)).unwrap();
    (device, handle)
}

#[test]
fn a_vector_that_never_had_a_handler_is_unknown() {
    let machine = Machine::new(Addressing::Stays);
    let (_device, _handle) = one_vector(&machine, |_| {});
    for hwirq in [0, FIRST + 1, FIRST + 4096, 1 << 24, u32::MAX] {
        let unknown = Dispatched::Unhandled(Unhandled::Unknown);
        assert_eq!(machine.dispatch(0, HwIrq::new(hwirq)), unknown);
    }
}

#[test]
fn dispatch_returns_released_after_the_handle_is_dropped() {
    let machine = Machine::new(Addressing::Stays);
    let (_device, handle) = one_vector(&machine, |_| {});
    let hwirq = handle.hwirq();
    drop(handle);
    assert_eq!(machine.dispatch(0, hwirq), Dispatched::Unhandled(Unhandled::Released));
}

#[test]
fn dispatch_on_a_cpu_the_machine_lacks_returns_unknown_cpu() {
    let machine = Machine::new(Addressing::Stays);
    let (_device, handle) = one_vector(&machine, |_| panic!("ran"));
    let done = machine.interrupts.dispatch(Cpu::new(4), handle.hwirq());
    assert_eq!(done, Dispatched::Unhandled(Unhandled::UnknownCpu));
}

#[test]
fn the_handler_context_has_irq_hwirq_and_cpu() {
    let machine = Machine::new(Addressing::Stays);
    let told = Arc::new(Mutex::new(None));
    let note = told.clone();
    let (_device, handle) = one_vector(&machine, move |context| {
        *note.lock().unwrap() = Some((context.irq(), context.hwirq(), context.cpu()));
    });
    assert_eq!(machine.dispatch(2, handle.hwirq()), Dispatched::Handled);
    assert_eq!(*told.lock().unwrap(), Some((handle.irq(), handle.hwirq(), Cpu::new(2))));
}

/// Sets up a handler that, in its first run, moves its interrupt to CPU 3 and lets a message arrive
/// on CPU 1.
fn message_while_the_handler_runs(
    kind: Addressing,
) -> (Machine, MsiDevice, Arc<OnceLock<IrqHandle>>, Arc<AtomicUsize>) {
    let machine = Machine::new(kind);
    let runs = Arc::new(AtomicUsize::new(0));
    let handle = Arc::new(OnceLock::<IrqHandle>::new());
    let (count, own, interrupts) = (runs.clone(), handle.clone(), machine.interrupts.clone());
    let (device, made) = one_vector(&machine, move |context| {
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            in_task(|| own.get().unwrap().set_affinity(Cpu::new(3)).unwrap());
            let elsewhere = in_hard_irq(1, || interrupts.dispatch(Cpu::new(1), context.hwirq()));
            assert_eq!(elsewhere, Dispatched::Deferred(Deferral::Running));
        }
    });
    handle.set(made).unwrap();
    (machine, device, handle, runs)
}

#[test]
fn a_message_while_the_handler_runs_is_redelivered() {
    for kind in [Addressing::Stays, Addressing::NamesCpu] {
        let (machine, _device, handle, runs) = message_while_the_handler_runs(kind);
        let hwirq = handle.get().unwrap().hwirq();
        assert_eq!(machine.dispatch(0, hwirq), Dispatched::Handled);
        assert_eq!(runs.load(Ordering::Relaxed), 1, "it ran on the wrong CPU");
        assert_eq!(machine.controller.pending_at(), [(Cpu::new(3), hwirq)]);
        assert_eq!(machine.take_interrupts(3), [(hwirq, Dispatched::Handled)]);
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    }
}

#[test]
fn messages_during_one_handler_run_are_redelivered_once() {
    let machine = Machine::new(Addressing::Stays);
    let interrupts = machine.interrupts.clone();
    let first = AtomicUsize::new(0);
    let (_device, handle) = one_vector(&machine, move |context| {
        if first.fetch_add(1, Ordering::Relaxed) == 0 {
            for cpu in [1, 2, 1] {
                interrupts.dispatch(Cpu::new(cpu), context.hwirq());
            }
        }
    });
    machine.dispatch(0, handle.hwirq());
    machine.settle();
    assert_eq!((handle.count(), handle.redelivered()), (2, 1));
    assert_eq!(machine.interrupts.redelivered(), 1);
}

#[test]
fn a_wired_level_during_a_handler_run_is_not_redelivered() {
    let machine = Machine::new(Addressing::Stays);
    let interrupts = machine.interrupts.clone();
    let request = irq_domain::WiredRequest::new(HwIrq::new(40), Trigger::Level, "uart");
    let handle = machine
        .interrupts
        .request_wired(request, move |context| {
            let again = interrupts.dispatch(Cpu::new(1), context.hwirq());
            assert_eq!(again, Dispatched::Deferred(Deferral::Running));
        })
        .unwrap();
    machine.dispatch(0, handle.hwirq());
    assert!(machine.root.pending.lock().unwrap().is_empty());
    assert_eq!(handle.redelivered(), 0);
}

#[test]
fn enabling_redelivers_a_message_deferred_while_disabled() {
    let machine = Machine::new(Addressing::Stays);
    let (_device, handle) = one_vector(&machine, |_| {});
    handle.disable();
    let done = machine.dispatch(0, handle.hwirq());
    assert_eq!(done, Dispatched::Deferred(Deferral::Disabled));
    machine.settle();
    assert_eq!(handle.count(), 0);
    handle.enable();
    machine.settle();
    assert_eq!((handle.count(), handle.redelivered()), (1, 1));
}

#[test]
fn enabling_an_irq_runs_its_deferred_handler() {
    let machine = Machine::new(Addressing::Stays);
    let handle = Arc::new(OnceLock::<IrqHandle>::new());
    let (own, interrupts, runs) = (handle.clone(), machine.interrupts.clone(), AtomicUsize::new(0));
    let (_device, made) = one_vector(&machine, move |context| {
        if runs.fetch_add(1, Ordering::Relaxed) == 0 {
            interrupts.dispatch(Cpu::new(1), context.hwirq());
            own.get().unwrap().disable();
        }
    });
    handle.set(made).unwrap();
    let handle = handle.get().unwrap();
    machine.dispatch(0, handle.hwirq());
    machine.settle();
    assert_eq!(handle.count(), 1, "ran while disabled");
    handle.enable();
    machine.settle();
    assert_eq!(handle.count(), 2, "the message was lost");
}

#[test]
fn disabling_an_irq_masks_its_vector_immediately() {
    for kind in StoreKind::EDGES {
        let (machine, store, _device, handle) = requested(Addressing::Stays, kind);
        let masked = || {
            if kind.fast {
                store.is_masked(0)
            } else {
                machine.controller.is_masked(handle.hwirq())
            }
        };
        assert!(!masked(), "{kind:?}");
        handle.disable();
        assert!(masked(), "{kind:?}");
        handle.enable();
        assert!(!masked(), "{kind:?}");
    }
}

#[test]
fn a_message_during_a_panicking_handler_is_redelivered() {
    let machine = Arc::new(Machine::new(Addressing::Stays));
    let runs = Arc::new(AtomicUsize::new(0));
    let (inner, count) = (machine.clone(), runs.clone());
    let (_device, handle) = one_vector(&machine, move |context| {
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            let elsewhere = inner.interrupts.dispatch(Cpu::new(1), context.hwirq());
            assert_eq!(elsewhere, Dispatched::Deferred(Deferral::Running));
            panic!("the first run fails");
        }
    });
    let dispatch = || machine.interrupts.dispatch(Cpu::new(0), handle.hwirq());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(dispatch)).is_err());
    machine.settle();
    assert_eq!((runs.load(Ordering::Relaxed), handle.redelivered()), (2, 1));
}
