//! Measures the cost of an interrupt.

use crate::devices::nvme::handler_address;
use crate::machine::{Machine, NamedTest};
use crate::report::{Outcome, Report, check, tell};
use crate::rig::Rig;
use crate::soft_device::SoftDevice;
use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use doorbell_facts::WatchedFact;
use image_rt::{console, cpu, println};
use msi_types::Cpu;

/// Number of messages that are timed.
const TIMED: u64 = 2000;
/// Number of interrupts whose instructions QEMU logs, and time limit in milliseconds for the runner
/// to turn the log on.
const WATCHED: usize = 16;
const WATCHER_PATIENCE: u64 = 60_000;

pub(super) const TESTS: &[NamedTest] =
    &[("a message to oneself is handled before the next instruction", time)];

/// Reads from a disk; each read causes one interrupt. No other test runs, and the runner makes QEMU
/// log every instruction after this test has reported that it is ready.
pub(super) fn watched(machine: &'static Machine, report: &mut Report) {
    report.case("reads, with somebody watching", || {
        let rig = Rig::of(machine, "nvme")?;
        tell(WatchedFact::Ready { handler: format!("{:x}", handler_address()).into() });
        check!(
            cpu::wait_until(WATCHER_PATIENCE, || console::read().is_some()),
            "the runner did not start watching"
        );
        for _ in 0..WATCHED {
            rig.fire(1, rig.handles[1].effective_affinity())?;
        }
        tell(WatchedFact::Done);
        rig.tear_down()
    });
}

/// Measures the time from unmasking interrupts to a message's handler, and from the handler back to
/// the interrupted code. With QEMU's instruction counting (`-icount shift=0`), a nanosecond is one
/// instruction.
fn time(machine: &Machine) -> Outcome {
    let entered = Arc::new(AtomicU64::new(0));
    let at = entered.clone();
    let device =
        SoftDevice::new(machine, 1, move |_, _| at.store(cpu::ticks(), Ordering::Relaxed))?;
    machine.route(&device.handles[0], Cpu::new(0))?;
    let (mut there, mut back, mut late) = (0, 0, 0);
    for _ in 0..TIMED {
        let state = cpu::irq_save();
        device.fire(0);
        let before = cpu::ticks();
        cpu::irq_restore(state);
        let after = cpu::ticks();
        let handled = entered.load(Ordering::Relaxed);
        if handled < before {
            late += 1;
            continue;
        }
        there += handled - before;
        back += after - handled;
    }
    let average =
        |ticks: u64| ticks * 1_000_000 / cpu::ticks_per_millisecond() / (TIMED - late).max(1);
    println!("note - cost: {} ns to the handler, {} ns back", average(there), average(back));
    check!(late == 0, "{late} of {TIMED} messages were handled late");
    device.tear_down()
}
