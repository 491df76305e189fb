//! The root controller's wired and private interrupts.

use crate::mock::{
    Addressing, Hotplug as _, Kernel, Machine, Root, StoreKind, in_hard_irq, requested,
};
use irq_domain::{
    Config, Deferral, Dispatched, Interrupts, IrqReturn, PerCpuHandle, RequestError, WiredRequest,
};
use msi_types::{Cpu, HwIrq, Trigger, WiredParent};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const UART_INPUT: HwIrq = HwIrq::new(33);
const UART: WiredRequest<'static> = WiredRequest::new(UART_INPUT, Trigger::Level, "uart");
const TIMER: HwIrq = HwIrq::new(27);

fn timer(machine: &Machine, name: &str) -> Result<PerCpuHandle, RequestError> {
    machine.interrupts.request_per_cpu(TIMER, Trigger::Level, name, |_| {})
}

#[test]
fn a_request_configures_the_input_until_its_handle_is_dropped() {
    let machine = Machine::new(Addressing::Stays);
    let handle = machine.interrupts.request_wired(UART, |_| {}).unwrap();
    let line = machine.root.line(33).unwrap();
    assert_eq!((line.masked, line.trigger), (false, Some(Trigger::Level)));
    assert_eq!(line.target, Some(handle.effective_affinity()));
    drop(handle);
    assert_eq!(machine.root.line(33), None);
    assert!(machine.interrupts.snapshot().unwrap().is_empty());
}

#[test]
fn a_wired_request_beyond_the_hwirq_space_is_refused() {
    let machine = Machine::new(Addressing::Stays);
    let hwirq = HwIrq::new(1 << 24);
    let refused = machine.interrupts.request_wired(UART.with_hwirq(hwirq), |_| {});
    assert_eq!(refused.err(), Some(RequestError::OutOfRange(hwirq)));
}

#[test]
fn an_edge_that_arrives_while_disabled_becomes_pending_at_enable() {
    let machine = Machine::new(Addressing::Stays);
    let request = UART.with_trigger(Trigger::Edge);
    let handle = machine.interrupts.request_wired(request, |_| {}).unwrap();
    handle.disable();
    machine.interrupts.dispatch(Cpu::new(0), UART_INPUT);
    assert_eq!(handle.is_pending(), Some(false));
    handle.enable();
    assert_eq!(handle.is_pending(), Some(true));
}

#[test]
fn root_interrupts_need_a_wired_parent() {
    let interrupts = Interrupts::new(Config::new(NonZeroU16::MIN, Arc::new(Kernel))).unwrap();
    let private = interrupts.request_per_cpu(TIMER, Trigger::Level, "timer", |_| {});
    assert_eq!(private.err(), Some(RequestError::NoWiredParent));
    let wired = interrupts.request_wired(UART, |_| {});
    assert_eq!(wired.err(), Some(RequestError::NoWiredParent));
}

#[test]
fn a_second_request_for_a_private_vector_is_refused() {
    let machine = Machine::new(Addressing::Stays);
    let first = timer(&machine, "timer").unwrap();
    let second = timer(&machine, "other");
    assert_eq!(second.err(), Some(RequestError::InUse(TIMER)));
    in_hard_irq(0, || first.enable_here());
    let dispatched = machine.dispatch(0, TIMER);
    assert_eq!(dispatched, Dispatched::Handled, "the refused request removed the first handler");
    drop(first);
    let third = timer(&machine, "third").unwrap();
    assert_eq!(third.irq().get(), 0, "the refused request kept a number");
}

#[test]
fn a_request_whose_trigger_fails_releases_the_input() {
    let machine = Machine::new(Addressing::Stays);
    machine.root.stuck.store(true, Ordering::Relaxed);
    let refused = machine.interrupts.request_wired(UART, |_| {});
    assert!(matches!(refused, Err(RequestError::Controller(_))));
    assert_eq!((machine.root.line(33), machine.interrupts.snapshot().unwrap().len()), (None, 0));
}

#[test]
fn a_line_whose_handle_was_dropped_is_not_moved() {
    let machine = Machine::new(Addressing::Stays);
    let handle = machine.interrupts.request_wired(UART, |_| {}).unwrap();
    let (irq, before) = (handle.irq(), machine.root.line(33).unwrap().target);
    in_hard_irq(0, || drop(handle));
    let moved = machine.interrupts.set_affinity(irq, Cpu::new(3));
    assert_eq!(moved.unwrap_err(), irq_domain::MoveError::UnknownIrq(irq));
    assert_eq!(machine.root.line(33).unwrap().target, before);
    machine.interrupts.reclaim();
}

#[test]
fn a_vector_is_either_wired_or_private() {
    let machine = Machine::new(Addressing::Stays);
    let in_use = Some(RequestError::InUse(UART_INPUT));
    let request_private =
        || machine.interrupts.request_per_cpu(UART_INPUT, Trigger::Level, "timer", |_| {});
    let private = request_private().unwrap();
    assert_eq!(machine.interrupts.request_wired(UART, |_| {}).err(), in_use);
    assert_eq!(machine.root.line(33), None);
    drop(private);
    let _wired = machine.interrupts.request_wired(UART, |_| {}).unwrap();
    assert_eq!(request_private().err(), in_use);
    assert_eq!(machine.interrupts.snapshot().unwrap().len(), 1);
}

#[test]
fn the_hwirq_of_a_device_vector_cannot_be_requested_as_wired() {
    let (machine, _, _device, handle) = requested(Addressing::Stays, StoreKind::MSIX);
    let wired = machine.interrupts.request_wired(UART.with_hwirq(handle.hwirq()), |_| {});
    assert_eq!(wired.err(), Some(RequestError::InUse(handle.hwirq())));
    assert_eq!(machine.root.line(handle.hwirq().get()), None);
    assert_eq!(machine.interrupts.snapshot().unwrap().len(), 1);
}

#[test]
fn taking_a_cpu_offline_moves_its_wired_interrupts() {
    let machine = Machine::new(Addressing::Stays);
    let handle = machine.interrupts.request_wired(UART, |_| {}).unwrap();
    let before = handle.effective_affinity();
    assert_eq!(machine.interrupts.offline(before), Ok(vec![]));
    assert_ne!(machine.root.line(33).unwrap().target, Some(before));
}

#[test]
fn a_private_interrupt_has_no_affinity() {
    let machine = Machine::new(Addressing::Stays);
    let handle = timer(&machine, "timer").unwrap();
    let moved = machine.interrupts.set_affinity(handle.irq(), Cpu::new(1));
    assert_eq!(moved, Err(irq_domain::MoveError::PerCpu(handle.irq())));
    assert_eq!(machine.interrupts.effective_affinity(handle.irq()), None);
}

#[test]
fn a_private_edge_that_arrives_while_disabled_becomes_pending_at_enable() {
    let machine = Machine::new(Addressing::Stays);
    let sgi = HwIrq::new(1);
    let handle = machine.interrupts.request_per_cpu(sgi, Trigger::Edge, "ipi", |_| {}).unwrap();
    let early = machine.dispatch(3, sgi);
    assert_eq!(early, Dispatched::Deferred(Deferral::Disabled));
    in_hard_irq(3, || handle.enable_here());
    assert!(machine.root.pending.lock().unwrap().contains(&sgi));
}

#[test]
fn a_private_edge_that_arrives_while_its_handler_runs_is_redelivered() {
    let machine = Machine::new(Addressing::Stays);
    let (interrupts, runs) = (machine.interrupts.clone(), AtomicUsize::new(0));
    let sgi = HwIrq::new(1);
    let handle = machine
        .interrupts
        .request_per_cpu(sgi, Trigger::Edge, "ipi", move |_| {
            if runs.fetch_add(1, Ordering::Relaxed) == 0 {
                let nested = interrupts.dispatch(Cpu::new(0), sgi);
                assert_eq!(nested, Dispatched::Deferred(Deferral::Running));
            }
        })
        .unwrap();
    in_hard_irq(0, || handle.enable_here());
    machine.dispatch(0, sgi);
    assert!(machine.root.pending.lock().unwrap().contains(&sgi));
}

/// First vector of a controller that is chained to one input of the root.
const FIRST_BEHIND: u32 = 0x10_0000;

#[test]
fn inputs_of_two_parents_have_their_own_handlers() {
    let machine = Machine::new(Addressing::Stays);
    let second = Arc::new(Root::with_inputs(FIRST_BEHIND..FIRST_BEHIND + 8));
    let parent: Arc<dyn WiredParent> = second.clone();
    let button = UART.with_hwirq(HwIrq::new(FIRST_BEHIND + 3)).with_name("button");
    let uart = machine.interrupts.request_wired(UART, |_| {}).unwrap();
    let pressed = machine.interrupts.request_wired_at(&parent, button, |_| {}).unwrap();
    let line = || second.line(FIRST_BEHIND + 3);
    let done = machine.interrupts.dispatch(Cpu::new(0), pressed.hwirq());
    assert_eq!((done, uart.count(), pressed.count()), (Dispatched::Handled, 0, 1));
    pressed.set_affinity(Cpu::new(2)).unwrap();
    assert_eq!(line().unwrap().target, Some(Cpu::new(2)));
    pressed.disable();
    assert!(line().unwrap().masked);
    drop(pressed);
    assert_eq!((line(), machine.interrupts.snapshot().unwrap().len()), (None, 1));
}

#[test]
fn a_hwirq_in_use_at_one_parent_is_refused_at_another() {
    let machine = Machine::new(Addressing::Stays);
    let second = Arc::new(Root::default());
    let parent: Arc<dyn WiredParent> = second.clone();
    let _first = machine.interrupts.request_wired(UART, |_| {}).unwrap();
    let refused = machine.interrupts.request_wired_at(&parent, UART, |_| {});
    assert_eq!(refused.err(), Some(RequestError::InUse(UART_INPUT)));
    assert_eq!(second.line(33), None);
}

#[test]
fn a_handler_dispatches_an_input_of_a_cascaded_controller() {
    let machine = Machine::new(Addressing::Stays);
    let parent: Arc<dyn WiredParent> = Arc::new(Root::with_inputs(FIRST_BEHIND..FIRST_BEHIND + 8));
    let behind = UART.with_hwirq(HwIrq::new(FIRST_BEHIND + 5)).with_name("behind");
    let handle = machine.interrupts.request_wired_at(&parent, behind, |_| {}).unwrap();
    let interrupts = machine.interrupts.clone();
    let mux = move |context: &irq_domain::IrqContext<'_>| match interrupts
        .dispatch(context.cpu(), HwIrq::new(FIRST_BEHIND + 5))
    {
        Dispatched::Handled => IrqReturn::Handled,
        _ => IrqReturn::None,
    };
    let _mux = machine.interrupts.request_wired(UART, mux).unwrap();
    let dispatched = machine.dispatch(1, UART_INPUT);
    assert_eq!((dispatched, handle.count()), (Dispatched::Handled, 1));
}
