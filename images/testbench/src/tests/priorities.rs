//! Tests of preemption, priority order, the priority mask, and wired interrupts.

use crate::controller::{self, highest_pending, mask_below, restore_mask, running_priority};
use crate::machine::{Machine, NamedTest};
use crate::report::{Outcome, Verdict, check, skip};
use crate::soft_device::SoftDevice;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use gic_arch::Priority;
use image_rt::cpu;
use image_rt::lock::IrqMutex;
use irq_domain::WiredRequest;
use msi_types::{Cpu, Pending, Trigger};

/// The initial priority of all interrupts (the lowest of the three), and the highest one.
const USUAL: Priority = Priority::new(0xa0);
const URGENT: Priority = Priority::new(0x40);

pub(super) const TESTS: &[NamedTest] = &[
    ("the most urgent of several pending messages comes first", in_order),
    ("an urgent message preempts a handler, one of the same priority does not", preempts),
    ("the priority mask holds back what is not more urgent", masked),
    ("a message to oneself is handled before the next instruction", at_once),
    ("an SPI arrives on the CPU that it is routed to, and can be held back", wired),
];

/// Log of events in order: slots at the start of their handlers, and slots plus [`END`] at the end.
type Log = Arc<IrqMutex<Vec<u16>>>;
const END: u16 = 100;

fn log() -> Log {
    Arc::new(IrqMutex::new(Vec::with_capacity(64)))
}

fn events(log: &Log) -> Vec<u16> {
    log.with(|log| log.clone())
}

/// Returns a device whose vectors target CPU 0.
fn device(
    machine: &Machine,
    vectors: u16,
    handler: impl Fn(u16, &irq_domain::IrqContext<'_>) + Clone + Send + Sync + 'static,
) -> Result<SoftDevice, Verdict> {
    if machine.is_chained() {
        skip!("the vectors of a line share its priority");
    }
    let device = SoftDevice::new(machine, vectors, handler)?;
    for handle in &device.handles {
        handle.set_affinity(Cpu::new(0))?;
    }
    Ok(device)
}

fn set_priority(
    machine: &Machine,
    device: &SoftDevice,
    slot: usize,
    priority: Priority,
) -> Outcome {
    let hwirq = device.vectors[slot].hwirq;
    controller::set_priority(machine.gic(), machine.its.as_deref(), hwirq, priority)
}

/// Restores the priorities and frees the vectors. The priorities must be restored, because a freed
/// SPI keeps its priority and its next owner does not expect a changed one.
fn give_back(machine: &Machine, device: SoftDevice) -> Outcome {
    for slot in 0..device.vectors.len() {
        set_priority(machine, &device, slot, USUAL)?;
    }
    device.tear_down()
}

fn in_order(machine: &Machine) -> Outcome {
    let log = log();
    let seen = log.clone();
    let device = device(machine, 3, move |slot, _| seen.with(|log| log.push(slot)))?;
    set_priority(machine, &device, 1, URGENT)?;
    set_priority(machine, &device, 2, Priority::new(0x80))?;
    let state = cpu::irq_save();
    for slot in 0..3 {
        device.fire(slot);
    }
    cpu::irq_restore(state);
    cpu::wait_until(2000, || events(&log).len() == 3);
    check!(events(&log) == [1, 2, 0], "the order was {:?}", events(&log));
    give_back(machine, device)
}

fn preempts(machine: &'static Machine) -> Outcome {
    let gic = machine.gic();
    let log = log();
    let seen = log.clone();
    let running = Arc::new(AtomicU64::new(0));
    let priority = running.clone();
    let sender: Arc<IrqMutex<Option<crate::soft_device::Sender>>> = Arc::default();
    let from = sender.clone();
    let device = device(machine, 3, move |slot, _| {
        seen.with(|log| log.push(slot));
        if slot == 0 {
            priority.store(running_priority(gic).get().into(), Ordering::Relaxed);
            let sender = from.with(|sender| sender.clone());
            cpu::irq_enable();
            if let Some(sender) = &sender {
                sender.fire(1);
                sender.fire(2);
            }
            cpu::wait_until(2, || false);
            cpu::irq_save();
        }
        seen.with(|log| log.push(slot + END));
    })?;
    sender.with(|sent| *sent = Some(device.sender.clone()));
    set_priority(machine, &device, 2, URGENT)?;
    device.fire(0);
    cpu::wait_until(2000, || events(&log).len() == 6);
    check!(events(&log) == [0, 2, 2 + END, END, 1, 1 + END], "the order was {:?}", events(&log));
    let found = running.load(Ordering::Relaxed);
    check!(found == u64::from(USUAL.get()), "the running priority was {found:#x}");
    let idle = running_priority(gic);
    check!(idle == Priority::IDLE, "the running priority afterwards is {idle:?}");
    give_back(machine, device)
}

fn masked(machine: &Machine) -> Outcome {
    let gic = machine.gic();
    let log = log();
    let seen = log.clone();
    let device = device(machine, 2, move |slot, _| seen.with(|log| log.push(slot)))?;
    set_priority(machine, &device, 1, URGENT)?;
    let before = mask_below(gic, Priority::new(0x80));
    device.fire(0);
    device.fire(1);
    cpu::wait_until(5, || events(&log).len() > 1);
    let early = events(&log);
    let (waiting, pending) = (highest_pending(gic), device.handles[0].is_pending());
    restore_mask(gic, before);
    check!(early == [1], "handlers that ran while the mask was set: {early:?}");
    let wanted = device.vectors[0].hwirq;
    // QEMU's GICv2 doesn't show interrupts in HPPIR if the priority mask masks them, even though
    // they are pending.
    let held_back = waiting.map_or(pending == Some(true), |intid| intid.hwirq() == wanted);
    check!(held_back, "{waiting:?} was pending, not {wanted}");
    cpu::wait_until(2000, || events(&log).len() == 2);
    check!(events(&log) == [1, 0], "handlers that ran in total: {:?}", events(&log));
    give_back(machine, device)
}

fn at_once(machine: &Machine) -> Outcome {
    let (device, runs) = SoftDevice::counting(machine, 1)?;
    machine.route(&device.handles[0], Cpu::new(0))?;
    for sent in 1..=2000 {
        let state = cpu::irq_save();
        device.fire(0);
        cpu::irq_restore(state);
        check!(runs.all() == sent, "message {sent} was handled late");
    }
    device.tear_down()
}

fn wired(machine: &Machine) -> Outcome {
    let (last, runs) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(0)));
    let (cpu_of_last, count) = (last.clone(), runs.clone());
    let request = WiredRequest::new(machine.board.free_spi, Trigger::Edge, "spi");
    let handle = machine.interrupts.request_wired(request, move |context| {
        cpu_of_last.store(context.cpu().get().into(), Ordering::Relaxed);
        count.fetch_add(1, Ordering::Release);
    })?;
    let mut sent = 0;
    for cpu in machine.online_cpus() {
        handle.set_affinity(cpu)?;
        handle.set_pending(Pending::Set);
        sent += 1;
        cpu::wait_until(2000, || runs.load(Ordering::Acquire) == sent);
        check!(runs.load(Ordering::Acquire) == sent, "the SPI did not arrive at CPU {cpu}");
        let at = last.load(Ordering::Relaxed);
        check!(at == u64::from(cpu.get()), "the SPI arrived at CPU {at}, not {cpu}");
    }
    handle.disable();
    handle.set_pending(Pending::Set);
    let early = AtomicBool::new(cpu::wait_until(5, || runs.load(Ordering::Acquire) > sent));
    check!(!early.into_inner(), "the handler ran while the SPI was disabled");
    check!(handle.is_pending() == Some(true), "the SPI is not pending");
    handle.enable();
    cpu::wait_until(2000, || runs.load(Ordering::Acquire) > sent);
    check!(runs.load(Ordering::Acquire) == sent + 1, "the SPI did not arrive after it was enabled");
    Ok(())
}
