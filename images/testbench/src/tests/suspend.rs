//! Tests of a machine that suspends, loses the contents of all registers that a power-down resets,
//! and resumes.

mod power;

pub(super) use self::power::Tables;

use crate::board::Board;
use crate::controller::registers;
use crate::machine::Machine;
use crate::report::{Outcome, Report, Verdict, check};
use crate::rig::Rig;
use crate::smp;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use gic_driver::{Mmio, Platform};
use image_rt::cpu;
use image_rt::pci::Function;
use image_rt::platform::Kernel;
use irq_domain::{IrqHandle, PerCpuHandle, WiredRequest};
use msi_types::{Cpu, HwIrq, Trigger};

/// Number of rounds of suspend and resume. The second round suspends the state that the first round
/// restored.
const ROUNDS: u32 = 2;
const BOOT: Cpu = Cpu::new(0);
const TIMER_PPI: u32 = 27;
/// Time in milliseconds for a posted message to reach the interrupt controller. In a guest, the
/// hypervisor forwards the message, possibly on another CPU.
const POSTED: u64 = 200;

pub(super) fn run(machine: &'static Machine, tables: Tables, report: &mut Report) {
    report.case(
        "the machine loses its registers in a suspend, and resumes with all interrupts",
        || {
            let busy = Busy::new(machine)?;
            (0..ROUNDS).try_for_each(|_| suspend_and_resume(machine, tables, &busy))?;
            busy.devices.into_iter().try_for_each(|(_, rig)| rig.tear_down())
        },
    );
}

/// Interrupt sources that must work after a resume.
struct Busy {
    /// One device with MSI and one with MSI-X. The list is empty if the machine has no MSI
    /// controller.
    devices: Vec<(&'static Function, Rig)>,
    wired: IrqHandle,
    lines: Arc<AtomicU64>,
    _timer: PerCpuHandle,
    ticks: Arc<AtomicU64>,
}

impl Busy {
    fn new(machine: &'static Machine) -> Result<Self, Verdict> {
        let mut devices = Vec::new();
        for name in ["edu", "nvme"].into_iter().filter(|_| machine.parent.is_some()) {
            devices.push((machine.device(name)?.0, Rig::of(machine, name)?));
        }
        let (lines, ticks) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (line, tick) = (lines.clone(), ticks.clone());
        let uart = WiredRequest::new(machine.board.uart_spi, Trigger::Level, "uart");
        let wired = machine.interrupts.request_wired(uart, move |_| {
            set_uart(machine.board, |board| board.quiet);
            line.fetch_add(1, Ordering::Release);
        })?;
        let vector = HwIrq::new(TIMER_PPI);
        let handler = move |_: &irq_domain::IrqContext<'_>| {
            cpu::stop_virtual_timer();
            tick.fetch_add(1, Ordering::Release);
        };
        let timer = machine.interrupts.request_per_cpu(vector, Trigger::Level, "timer", handler)?;
        timer.enable_here();
        Ok(Self { devices, wired, lines, _timer: timer, ticks })
    }

    /// Returns the devices that can send messages while interrupts are masked.
    fn posting(&self) -> impl Iterator<Item = &(&'static Function, Rig)> {
        self.devices.iter().filter(|(_, rig)| rig.device.posts())
    }

    /// Makes each source signal, and checks that its handler runs on `cpu`.
    fn arrives(&self, machine: &Machine, cpu: Cpu) -> Outcome {
        for (_, rig) in &self.devices {
            rig.handles.iter().try_for_each(|handle| machine.route(handle, cpu))?;
            let runs = rig.fire(0, cpu)?;
            check!(runs.is_some_and(|runs| runs.there > 0), "{} at CPU {cpu}: {runs:?}", rig.name);
        }
        let before = self.lines.load(Ordering::Acquire);
        self.wired.set_affinity(cpu)?;
        set_uart(machine.board, |board| board.when_sent);
        let arrived = cpu::wait_until(2000, || self.lines.load(Ordering::Acquire) > before);
        check!(arrived, "the line's interrupt does not arrive at CPU {cpu}");
        let before = self.ticks.load(Ordering::Acquire);
        cpu::start_virtual_timer_in(1);
        let arrived = cpu::wait_until(2000, || self.ticks.load(Ordering::Acquire) > before);
        check!(arrived, "the timer's interrupt does not arrive");
        Ok(())
    }
}

/// Enables or disables the interrupt of the console. If it is enabled, the line is asserted after a
/// character was sent.
fn set_uart(board: &Board, to: fn(&Board) -> u32) {
    if let Some(uart) = Kernel.map(board.uart) {
        uart.write32(board.uart_enable, to(board));
    }
}

fn suspend_and_resume(machine: &'static Machine, tables: Tables, busy: &Busy) -> Outcome {
    busy.arrives(machine, BOOT)?;
    let others: Vec<_> = machine.online_cpus().into_iter().filter(|cpu| *cpu != BOOT).collect();
    others.iter().try_for_each(|cpu| super::hotplug::take_away(machine, *cpu))?;
    let state = cpu::irq_save();
    let result = sleep_with_something_pending(machine, tables, busy);
    cpu::irq_restore(state);
    let (messages, lines) = result?;
    for ((_, rig), before) in busy.posting().zip(&messages) {
        let arrived = cpu::wait_until(2000, || rig.counts.of(0) > *before);
        check!(arrived, "the message that {} sent before the suspend is lost", rig.name);
    }
    let arrived = cpu::wait_until(2000, || busy.lines.load(Ordering::Acquire) > lines);
    check!(arrived, "the interrupt of the line that was asserted during the suspend is lost");
    busy.arrives(machine, BOOT)?;
    others.iter().try_for_each(|cpu| smp::turn_on(machine, *cpu))?;
    let Some(last) = others.last() else { return Ok(()) };
    busy.arrives(machine, *last)?;
    busy.arrives(machine, BOOT)
}

/// Suspends and resumes, with an asserted line and with a pending message of each device that can
/// post one. Returns the number of earlier runs of the devices' handlers and of the line's handler.
fn sleep_with_something_pending(
    machine: &'static Machine,
    tables: Tables,
    busy: &Busy,
) -> Result<(Vec<u64>, u64), Verdict> {
    let messages = busy.posting().map(|(_, rig)| rig.counts.of(0)).collect();
    let lines = busy.lines.load(Ordering::Acquire);
    for (_, rig) in busy.posting() {
        rig.device.fire(0)?;
        // A controller drops a message that arrives after its LPIs are disabled. With direct LPIs,
        // the pending state can't be read, so we wait long enough for the messages to arrive.
        cpu::wait_until(POSTED, || rig.handles.iter().any(|one| one.is_pending() == Some(true)));
    }
    set_uart(machine.board, |board| board.when_sent);
    let suspended = machine.irqchip.suspend(BOOT, &registers())?;
    power::lose_at_controllers(machine, tables);
    let lost: Vec<_> =
        busy.devices.iter().map(|(function, _)| power::lose_at_endpoint(function)).collect();

    machine.irqchip.resume(suspended, &registers())?;
    for ((function, rig), header) in busy.devices.iter().zip(lost) {
        power::restore_header(function, &header);
        rig.restore()?;
    }
    Ok((messages, lines))
}
