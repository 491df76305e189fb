//! Records what happens to interrupts, from a physical interrupt to the end of the guest's, and
//! prints the records at the end (`trace`). Each CPU has memory for its first [`LIMIT`] records,
//! because printing would change the timing. Without the option, seams are not observed
//! ([`Observed`]).
//!
//! | event | where it is recorded |
//! |---|---|
//! | physical `Taken`, `Ended` | [`interrupts::take`](crate::interrupts::take) |
//! | `Translated`, `Pending`, `Dropped` | the guest's MSI controllers, behind passed-through functions |
//! | `Kicked` | the kicks of the guest's GIC |
//! | `Command` | the trapped write to `GITS_CWRITER` |
//! | `Listed`, and the guest's `Taken` and `Ended` | the list registers, before the entry and after the exit |
//!
//! A guest acknowledges and ends its interrupts without an exit. Its `Taken` and `Ended` have the
//! time of the next exit that folds the list registers.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use doorbell_facts::{Fact, HypervisorFact, TraceEvent, TracedInterrupt, TracedMessage};
use image_rt::cpu::{self, MAX_CPUS};
use image_rt::lock::IrqMutex;
use image_rt::println;
use msi_types::trace::{Event, Observed, Observer};
use msi_types::{Cpu, DeviceId, HwIrq, MsiMessage};

/// Maximum number of records of a CPU.
const LIMIT: usize = 1 << 14;

static IS_ON: AtomicBool = AtomicBool::new(false);
static RECORDS: [IrqMutex<Records>; MAX_CPUS] =
    [const { IrqMutex::new(Records { kept: Vec::new(), left_out: 0 }) }; MAX_CPUS];

/// The records of a CPU.
struct Records {
    /// Never grows beyond its initial capacity.
    kept: Vec<Record>,
    left_out: u64,
}

struct Record {
    at: u64,
    guest: Option<u8>,
    event: Event,
}

/// Starts the trace of a machine with this number of CPUs. Must be called before the guests are
/// created.
pub(crate) fn start(cpus: u32) {
    for records in RECORDS.iter().take(cpus as usize) {
        records.with(|records| records.kept = Vec::with_capacity(LIMIT));
    }
    IS_ON.store(true, Relaxed);
}

/// Returns `true` if the machine is traced.
#[inline]
pub(crate) fn is_on() -> bool {
    IS_ON.load(Relaxed)
}

/// Records an event of a guest, or of the machine.
#[cold]
pub(crate) fn record(guest: Option<usize>, event: Event) {
    let record = Record { at: cpu::ticks(), guest: guest.map(|guest| guest as u8), event };
    RECORDS[cpu::current()].with(|Records { kept, left_out }| {
        if kept.len() < kept.capacity() {
            kept.push(record);
        } else {
            *left_out += 1;
        }
    });
}

/// Records events of a guest.
#[derive(Debug)]
pub(crate) struct GuestObserver(usize);

impl Observer for GuestObserver {
    fn observe(&self, event: Event) {
        record(Some(self.0), event);
    }
}

/// Adds an observer that records events to a guest's seam.
pub(crate) fn observed<T>(guest: usize, seam: T) -> Observed<T, Arc<GuestObserver>> {
    Observed::new(seam, Arc::new(GuestObserver(guest)))
}

/// Ends the trace, and prints it if the machine was traced.
pub(crate) fn report() {
    if !IS_ON.swap(false, Relaxed) {
        return;
    }
    let empty = || Records { kept: Vec::new(), left_out: 0 };
    let all = RECORDS.each_ref().map(|records| records.with(|it| mem::replace(it, empty())));
    let trace = HypervisorFact::Trace {
        ticks_per_millisecond: cpu::ticks_per_millisecond(),
        events: all.iter().map(|records| records.kept.len()).sum(),
        left_out: all.iter().map(|records| records.left_out).sum(),
    };
    println!("{}", Fact::from(trace));
    for (cpu, records) in (0..).zip(all) {
        for Record { at, guest, event } in records.kept {
            let (guest, event) = (guest.map(usize::from), fact(event));
            println!("{}", Fact::from(HypervisorFact::Event { at, cpu, guest, event }));
        }
    }
}

/// Returns the fact for a recorded event.
fn fact(event: Event) -> TraceEvent {
    let message = |device: DeviceId, message: MsiMessage| TracedMessage {
        device: device.get(),
        address: message.address,
        data: message.data,
    };
    let interrupt = |cpu: Cpu, hwirq: HwIrq| TracedInterrupt { cpu: cpu.get(), intid: hwirq.get() };
    match event {
        Event::Translated { device, message: it } => TraceEvent::Translated(message(device, it)),
        Event::Pending { device, message: it } => TraceEvent::Pending(message(device, it)),
        Event::Dropped { device, message: it, .. } => TraceEvent::Dropped(message(device, it)),
        Event::Kicked { cpu } => TraceEvent::Kicked { cpu: cpu.get() },
        Event::Listed { cpu, hwirq } => TraceEvent::Listed(interrupt(cpu, hwirq)),
        Event::Taken { cpu, hwirq } => TraceEvent::Taken(interrupt(cpu, hwirq)),
        Event::Ended { cpu, hwirq } => TraceEvent::Ended(interrupt(cpu, hwirq)),
        Event::Command { its, words } => TraceEvent::Command { its, words },
        _ => unreachable!("the hypervisor does not record {event}"),
    }
}
