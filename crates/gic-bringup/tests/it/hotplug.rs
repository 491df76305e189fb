//! CPU hotplug tests: a CPU is turned off and on again.

use crate::machine::{CPU0, CPU1, Chip, Machine, function};
use gic_arch::{Lpi, gicr};
use gic_bringup::MsiController;
use gic_driver::MmioExt;
use gic_driver::its::EventRequest;
use irq_domain::{PerCpuHandle, WiredRequest};
use msi_types::{Cpu, DeviceId, HwIrq, Level, Line, MsiMessage, Shape, Trigger};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SPI: u32 = 40;
const PPI: u32 = 27;
const TIMER: Line = Line::Ppi { cpu: CPU1, intid: PPI };

/// Per-CPU count of handler runs.
#[derive(Clone, Default)]
struct Runs(Arc<[AtomicU64; 2]>);

impl Runs {
    fn counter(&self) -> impl Fn(&irq_domain::IrqContext<'_>) + Send + Sync + 'static {
        let runs = self.0.clone();
        move |context| _ = runs[context.cpu().index()].fetch_add(1, Ordering::Relaxed)
    }

    fn get(&self) -> [u64; 2] {
        self.0.each_ref().map(|runs| runs.load(Ordering::Relaxed))
    }
}

fn leave(machine: &Machine, chip: &Chip) {
    machine
        .execute(CPU1, |registers| chip.cpu_off(CPU1, CPU0, registers, |_| unreachable!()))
        .unwrap();
}

fn return_to(machine: &Machine, chip: &Chip) {
    machine.execute(CPU1, |registers| chip.cpu_on(CPU1, registers, |_| unreachable!())).unwrap();
}

fn is_asleep(machine: &Machine, cpu: Cpu) -> bool {
    machine.redistributor(cpu).read(gicr::WAKER).children_asleep()
}

#[test]
fn cpu_off_retargets_pending_and_later_messages() {
    let machine = Machine::new();
    let chip = machine.boot();
    let (device, messages) = function(&chip);
    device.allocate(Shape::Independent, 2..=2).unwrap();
    let runs = Runs::default();
    let pending = device.request(0, "pending", runs.counter()).unwrap();
    let later = device.request(1, "later", runs.counter()).unwrap();
    for handle in [&pending, &later] {
        assert!(handle.hwirq().get() >= Lpi::FIRST.get());
        handle.set_affinity(CPU1).unwrap();
    }
    machine.send(&messages, 0);
    leave(&machine, &chip);
    machine.settle(&chip);
    assert_eq!(pending.count(), 1, "the pending message is handled once");
    assert!(is_asleep(&machine, CPU1) && !is_asleep(&machine, CPU0));
    assert!(!chip.gic().is_on(CPU1) && !chip.interrupts().is_online(CPU1));
    assert_eq!(later.effective_affinity(), CPU0);
    machine.send(&messages, 1);
    assert!(!machine.wants(CPU1) && machine.wants(CPU0));
    machine.settle(&chip);
    assert_eq!(later.count(), 1);

    return_to(&machine, &chip);
    assert!(!is_asleep(&machine, CPU1) && chip.interrupts().is_online(CPU1));
    assert_eq!(later.effective_affinity(), CPU0, "interrupts do not move back by themselves");
    later.set_affinity(CPU1).unwrap();
    let [_, before] = runs.get();
    machine.send(&messages, 1);
    machine.settle(&chip);
    assert_eq!(runs.get()[1], before + 1);
    assert_eq!((pending.count(), later.count()), (1, 2));
}

#[test]
fn cpu_off_retargets_wired_interrupts() {
    let machine = Machine::new();
    let chip = machine.boot();
    let runs = Runs::default();
    let request = WiredRequest::new(HwIrq::new(SPI), Trigger::Edge, "uart");
    let handle = chip.interrupts().request_wired(request, runs.counter()).unwrap();
    let pulse = || {
        machine.set_line(Line::Spi(SPI), Level::High);
        machine.set_line(Line::Spi(SPI), Level::Low);
    };
    handle.set_affinity(CPU1).unwrap();
    pulse();
    machine.settle(&chip);
    leave(&machine, &chip);
    pulse();
    machine.settle(&chip);
    assert_eq!(runs.get(), [1, 1]);
    return_to(&machine, &chip);
    handle.set_affinity(CPU1).unwrap();
    pulse();
    machine.settle(&chip);
    assert_eq!(runs.get(), [1, 2]);
}

/// Requests and enables a timer interrupt on CPU 1. The interrupt's handler deasserts the line.
fn timer(machine: &Arc<Machine>, chip: &Chip, runs: &Runs) -> PerCpuHandle {
    let (count, quieted) = (runs.counter(), machine.clone());
    let handler = move |context: &irq_domain::IrqContext<'_>| {
        quieted.set_line(TIMER, Level::Low);
        count(context);
    };
    let (hwirq, trigger) = (HwIrq::new(PPI), Trigger::Level);
    let handle = chip.interrupts().request_per_cpu(hwirq, trigger, "timer", handler).unwrap();
    machine.execute(CPU1, |_| handle.enable_here());
    handle
}

#[test]
fn private_interrupts_stay_enabled_over_hotplug() {
    let (machine, runs) = (Arc::new(Machine::new()), Runs::default());
    let chip = machine.boot();
    let _handle = timer(&machine, &chip, &runs);
    leave(&machine, &chip);
    machine.set_line(TIMER, Level::High);
    assert!(!machine.wants(CPU1) && !machine.wants(CPU0), "CPU 1 is off");
    return_to(&machine, &chip);
    assert!(machine.wants(CPU1));
    machine.settle(&chip);
    assert_eq!(runs.get(), [0, 1]);
}

#[test]
fn private_interrupts_stay_disabled_over_hotplug() {
    let (machine, runs) = (Arc::new(Machine::new()), Runs::default());
    let chip = machine.boot();
    let handle = timer(&machine, &chip, &runs);
    machine.execute(CPU1, |_| handle.disable_here());
    leave(&machine, &chip);
    return_to(&machine, &chip);
    machine.set_line(TIMER, Level::High);
    assert!(!machine.wants(CPU1), "disabled by its handle");
    machine.execute(CPU1, |_| handle.enable_here());
    leave(&machine, &chip);
    drop(handle);
    return_to(&machine, &chip);
    assert!(!machine.wants(CPU1), "released");
}

#[test]
fn cpu_off_handles_pending_private_interrupts_first() {
    let (machine, runs) = (Arc::new(Machine::new()), Runs::default());
    let chip = machine.boot();
    let _handle = timer(&machine, &chip, &runs);
    machine.set_line(TIMER, Level::High);
    leave(&machine, &chip);
    assert_eq!(runs.get(), [0, 1]);
}

#[test]
fn cpu_off_moves_events_that_no_handle_owns() {
    let machine = Machine::new();
    let chip = machine.boot();
    let (_, MsiController::Its(its)) = chip.controllers().next().unwrap() else { panic!("no ITS") };
    let device = DeviceId::new(7);
    let attachment = its.attach(device, 1).unwrap();
    let request = EventRequest::new(NonZeroU16::MIN, CPU1);
    let _block = its.map_events(&attachment, request).unwrap();
    leave(&machine, &chip);
    machine.signal(device, MsiMessage { address: its.doorbell(), data: 0 });
    assert!(machine.wants(CPU0) && !machine.wants(CPU1));
}

#[test]
fn a_managed_vector_waits_for_its_cpu() {
    let machine = Machine::new();
    let chip = machine.boot();
    let (device, messages) = function(&chip);
    device.allocate_managed(0, &[CPU1]).unwrap();
    let runs = Runs::default();
    let handle = device.request(0, "queue", runs.counter()).unwrap();
    leave(&machine, &chip);
    machine.send(&messages, 0);
    machine.settle(&chip);
    assert_eq!(runs.get(), [0, 0], "the vector is shut down");
    return_to(&machine, &chip);
    machine.settle(&chip);
    assert_eq!(runs.get(), [0, 1], "its device sent a message in the meantime");
    assert_eq!(handle.effective_affinity(), CPU1);
}
