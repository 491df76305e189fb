//! Records exits and acknowledged interrupts. `stats` counts them by reason, and `exits` prints the
//! exits as they happen. Without these options, the only cost is testing a flag at each exit.
//!
//! An exit lasts from the vector to the next entry, or until the vCPU waits or leaves its CPU. The
//! longest exit bounds how long the guest's other interrupts (and other guests) have to wait.

use alloc::collections::BTreeMap;
use alloc::format;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use doorbell_facts::{Fact, HypervisorFact};
use image_rt::lock::IrqMutex;
use image_rt::{cpu, println};

static COUNTS: AtomicBool = AtomicBool::new(false);
static PRINTS: AtomicBool = AtomicBool::new(false);

/// Enables records. Must be called before the guests run.
pub(crate) fn record(counts: bool, prints: bool) {
    COUNTS.store(counts, Relaxed);
    PRINTS.store(prints, Relaxed);
}

/// Returns `true` if exits are printed.
pub(crate) fn are_printed() -> bool {
    PRINTS.load(Relaxed)
}

/// Returns `true` if exits are counted or printed.
pub(crate) fn are_recorded() -> bool {
    COUNTS.load(Relaxed) || are_printed()
}

/// Counts of a guest's exits, by reason.
#[derive(Debug, Default)]
pub(crate) struct Exits(IrqMutex<BTreeMap<Reason, Count>>);

/// Reason for an exit, or class of an interrupt that the guest acknowledged.
pub(crate) type Reason = (&'static str, &'static str);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    times: u64,
    /// Duration of the longest exit in counter ticks.
    longest: u64,
}

impl Exits {
    /// Counts an exit and prints it under the same lock, so every reported exit has been printed.
    pub(crate) fn count(&self, reason: Reason, print: impl FnOnce()) {
        self.0.with(|counts| {
            counts.entry(reason).or_default().times += 1;
            print();
        });
    }

    pub(crate) fn took(&self, reason: Reason, ticks: u64) {
        self.0.with(|counts| {
            let count = counts.entry(reason).or_default();
            count.longest = count.longest.max(ticks);
        });
    }

    /// Prints the counts, if exits are counted.
    pub(crate) fn report(&self, guest: usize) {
        if !COUNTS.load(Relaxed) {
            return;
        }
        self.0.with(|counts| {
            for ((what, how), Count { times, longest }) in &*counts {
                let (reason, times) = (format!("{what}{how}").into(), *times);
                let longest = longest * 1_000_000 / cpu::ticks_per_millisecond();
                let count = HypervisorFact::Count { guest, reason, times, longest };
                println!("{}", Fact::from(count));
            }
        });
    }
}
