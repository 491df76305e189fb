//! Suspend and resume tests. While suspended, the machine loses all state except the contents of
//! RAM.

use crate::choices::Messages;
use crate::machine::{CPU0, CPU1, Chip, Machine, function};
use doorbell_hardware::bus::{AccessWidth, MmioDevice};
use doorbell_test_support::with_allocations;
use gic_arch::IntId;
use gic_bringup::{DriverError, SuspendError, Suspended};
use gic_firmware::{Controller, ControllerKind, Fact, IntIdSpan, Region};
use irq_domain::{IrqHandle, MsiDevice, PerCpuHandle, WiredRequest};
use msi_types::{Cpu, HwIrq, Level, Line, MsiMessage, Shape, Trigger};
use std::collections::BTreeMap;
use std::mem::take;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const SPI: u32 = 40;
const PPI: u32 = 27;
const TIMER: Line = Line::Ppi { cpu: CPU0, intid: PPI };

/// A machine with a two-vector device, a wired interrupt and the boot CPU's timer.
struct Busy {
    machine: Arc<Machine>,
    chip: Chip,
    messages: Arc<Messages>,
    vectors: [IrqHandle; 2],
    wired: IrqHandle,
    timer: PerCpuHandle,
    timer_runs: Arc<AtomicU64>,
    _device: MsiDevice,
}

impl Busy {
    fn new(machine: Machine) -> Self {
        let machine = Arc::new(machine);
        let chip = machine.boot();
        let (device, messages) = function(&chip);
        device.allocate(Shape::Independent, 2..=2).unwrap();
        let vectors = [0, 1].map(|slot| device.request(slot, "queue", |_| ()).unwrap());
        let quieted = machine.clone();
        let request = WiredRequest::new(HwIrq::new(SPI), Trigger::Level, "uart");
        let wired = chip
            .interrupts()
            .request_wired(request, move |_| quieted.set_line(Line::Spi(SPI), Level::Low))
            .unwrap();
        let timer_runs = Arc::new(AtomicU64::new(0));
        let (quieted, runs) = (machine.clone(), timer_runs.clone());
        let timer = chip
            .interrupts()
            .request_per_cpu(HwIrq::new(PPI), Trigger::Level, "timer", move |_| {
                quieted.set_line(TIMER, Level::Low);
                runs.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
        machine.execute(CPU0, |_| timer.enable_here());
        Self { machine, chip, messages, vectors, wired, timer, timer_runs, _device: device }
    }

    fn turn_others_off(&self) {
        self.machine
            .execute(CPU1, |registers| self.chip.cpu_off(CPU1, CPU0, registers, |_| unreachable!()))
            .unwrap();
    }

    fn suspend(&self) -> Result<Suspended, SuspendError> {
        self.machine.execute(CPU0, |registers| self.chip.suspend(CPU0, registers))
    }

    fn resume(&self, suspended: Suspended) {
        self.machine.execute(CPU0, |registers| self.chip.resume(suspended, registers)).unwrap();
    }

    fn counts(&self) -> [u64; 4] {
        let [first, second] = self.vectors.each_ref().map(IrqHandle::count);
        let timer = self.timer_runs.load(Ordering::Relaxed);
        [first, second, self.wired.count(), timer]
    }

    /// Makes each source signal once, and checks that each handler runs once.
    fn everything_arrives(&self) {
        let before = self.counts();
        self.machine.send(&self.messages, 0);
        self.machine.send(&self.messages, 1);
        self.machine.set_line(Line::Spi(SPI), Level::High);
        self.machine.set_line(TIMER, Level::High);
        self.machine.settle(&self.chip);
        assert_eq!(self.counts(), before.map(|count| count + 1));
    }
}

fn without_ces() -> Machine {
    Machine::with(|config| config.can_clear_enable_lpis = false)
}

#[test]
fn every_interrupt_is_delivered_after_power_loss() {
    for machine in [Machine::new(), without_ces()] {
        let busy = Busy::new(machine);
        busy.everything_arrives();
        busy.turn_others_off();
        let suspended = busy.suspend().unwrap();
        busy.machine.lose_power();
        busy.resume(suspended);
        busy.machine.settle(&busy.chip);
        busy.everything_arrives();

        busy.machine
            .execute(CPU1, |registers| busy.chip.cpu_on(CPU1, registers, |_| unreachable!()))
            .unwrap();
        busy.vectors[1].set_affinity(CPU1).unwrap();
        busy.wired.set_affinity(CPU1).unwrap();
        busy.machine.settle(&busy.chip);
        busy.everything_arrives();
    }
}

/// Registers of a MIP, by their offsets.
#[derive(Default)]
struct MipRegisters(Mutex<BTreeMap<u64, u64>>);

impl MmioDevice for MipRegisters {
    fn read(&self, offset: u64, _: AccessWidth) -> u64 {
        self.0.lock().unwrap().get(&offset).copied().unwrap_or(0)
    }

    fn write(&self, offset: u64, _: AccessWidth, value: u64) {
        self.0.lock().unwrap().insert(offset, value);
    }
}

#[test]
fn resume_writes_the_registers_of_a_mip() {
    let (at, registers) =
        (Region::new(0x3000_0000, 0xc0).unwrap(), Arc::new(MipRegisters::default()));
    let machine =
        Machine::with_devices(|_| (), |bus, _| bus.attach("mip", at, registers.clone()).unwrap());
    let spis = IntIdSpan::new(IntId::new(48), 8).unwrap();
    let busy = Busy::new(machine.described(|description| {
        description.controllers.push(Controller {
            ranges: vec![Fact::stated(spis)],
            message: Some(Fact::stated(MsiMessage { address: 0xff_ffff_f000, data: 0 })),
            ..Controller::new("/mip", ControllerKind::Mip, Some(at))
        });
    }));
    busy.turn_others_off();
    let suspended = busy.suspend().unwrap();
    let before = take(&mut *registers.0.lock().unwrap());
    assert_eq!(before.len(), 6);
    busy.resume(suspended);
    assert_eq!(*registers.0.lock().unwrap(), before);
}

#[test]
fn a_message_pending_at_suspend_is_handled_once_after_resume() {
    let busy = Busy::new(Machine::new());
    busy.turn_others_off();
    busy.machine.send(&busy.messages, 1);
    let suspended = busy.suspend().unwrap();
    assert!(!busy.machine.wants(CPU0), "a stopped GIC signals no interrupt");
    busy.machine.lose_power();
    busy.resume(suspended);
    busy.machine.settle(&busy.chip);
    assert_eq!(busy.counts(), [0, 1, 0, 0]);
}

#[test]
fn a_message_pending_at_suspend_is_handled_without_ces() {
    let busy = Busy::new(without_ces());
    busy.turn_others_off();
    busy.machine.send(&busy.messages, 1);
    let suspended = busy.suspend().unwrap();
    busy.machine.lose_power();
    busy.resume(suspended);
    busy.machine.settle(&busy.chip);
    assert_eq!(busy.counts(), [1, 1, 0, 0], "a spurious run is better than a lost wake-up");
}

#[test]
fn a_wake_up_line_that_is_still_asserted_is_handled_once() {
    let busy = Busy::new(Machine::new());
    busy.turn_others_off();
    let suspended = busy.suspend().unwrap();
    busy.machine.lose_power();
    busy.machine.set_line(Line::Spi(SPI), Level::High);
    busy.resume(suspended);
    busy.machine.settle(&busy.chip);
    assert_eq!(busy.counts(), [0, 0, 1, 0]);
}

#[test]
fn resume_restores_a_gic_that_kept_power() {
    let busy = Busy::new(Machine::new());
    busy.turn_others_off();
    busy.machine.send(&busy.messages, 0);
    let suspended = busy.suspend().unwrap();
    busy.resume(suspended);
    busy.machine.settle(&busy.chip);
    assert_eq!(busy.counts(), [1, 0, 0, 0]);
    busy.everything_arrives();
}

#[test]
fn suspend_is_refused_while_another_cpu_is_on() {
    let busy = Busy::new(Machine::new());
    let refused = busy.suspend().unwrap_err();
    assert!(matches!(refused, SuspendError::CpuIsOn(CPU1)), "{refused}");
    assert_eq!(refused.to_string(), "CPU 1 is still on, and nothing was suspended");
    busy.everything_arrives();
}

#[test]
fn suspend_is_refused_for_an_unknown_cpu() {
    let busy = Busy::new(Machine::new());
    busy.turn_others_off();
    let cpu = Cpu::new(7);
    let refused =
        busy.machine.execute(CPU0, |registers| busy.chip.suspend(cpu, registers)).unwrap_err();
    assert!(matches!(refused, SuspendError::CpuIsOn(CPU0)), "{refused}");
    busy.everything_arrives();
}

#[test]
fn a_suspend_that_fails_leaves_everything_running() {
    let busy = Busy::new(Machine::new());
    busy.turn_others_off();
    busy.machine.send(&busy.messages, 0);
    busy.machine.block_its();
    let failed = busy.suspend().unwrap_err();
    assert!(matches!(failed, SuspendError::Undone(DriverError::Its(..))), "{failed}");
    assert!(failed.to_string().ends_with("; all controllers have been restarted"), "{failed}");
    busy.machine.unblock();
    busy.machine.settle(&busy.chip);
    assert_eq!(busy.counts(), [1, 0, 0, 0]);
    busy.everything_arrives();
    busy.resume(busy.suspend().unwrap());
    busy.everything_arrives();
}

#[test]
fn a_suspend_that_fails_at_the_gic_restarts_all_controllers() {
    let busy = Busy::new(Machine::new());
    busy.turn_others_off();
    busy.machine.send(&busy.messages, 0);
    busy.machine.block_sleep();
    let failed = busy.suspend().unwrap_err();
    assert!(matches!(failed, SuspendError::Undone(DriverError::Gic(_))), "{failed}");
    busy.machine.unblock();
    busy.machine.settle(&busy.chip);
    assert_eq!(busy.counts(), [1, 0, 0, 0]);
    busy.everything_arrives();
}

#[test]
fn resume_allocates_no_heap() {
    let busy = Busy::new(Machine::new());
    busy.turn_others_off();
    let suspended = busy.suspend().unwrap();
    busy.machine.lose_power();
    busy.machine.execute(CPU0, |registers| {
        with_allocations(0, || busy.chip.resume(suspended, registers)).unwrap();
    });
    busy.everything_arrives();
    drop(busy.timer);
}
