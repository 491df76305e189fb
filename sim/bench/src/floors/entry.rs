//! The floor for entering the guest: one load for each word that records a change since the last
//! exit.
//!
//! | source of change | word |
//! |---|---|
//! | an SGI, PPI, SPI or LPI becomes pending for the vCPU, or what it may take changes | the vCPU's wake-up word: its producer kicks |
//! | a command or a register left work over | the machine's number of such sources: only one vCPU is kicked |
//!
//! The vCPU already knows, without a load, what the guest changed in its own CPU interface and
//! which interrupts it left active.
//!
//! The vCPUs enter the guest one after the other. Each vCPU loads its own wake-up word, which has a
//! separate cache line because other threads write it. The loads are unordered because no result
//! depends on another.

use super::words::load;
use crate::probe::{Probe, each, floor};
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

/// Name of the floor.
pub(crate) const ENTER: &str = "floor-enter";
/// Number of vCPUs that enter round-robin, here and in the measured cases.
pub(crate) const VCPUS: u16 = 32;

const ROUNDS: u32 = 256;

/// A word on a separate cache line.
#[repr(align(64))]
struct Line(AtomicU64);

/// The words that vCPUs load before entering their guests.
struct Machine {
    wakeup: Vec<Line>,
    work: Line,
}

impl Machine {
    fn new(vcpus: u16) -> Self {
        let line = || Line(AtomicU64::new(0));
        Self { wakeup: (0..vcpus).map(|_| line()).collect(), work: line() }
    }

    /// Performs the loads of each vCPU's entry. Returns `true` if anything has changed for any
    /// vCPU.
    #[inline]
    fn changed(&self) -> bool {
        self.wakeup.iter().fold(0, |seen, own| seen | load(&own.0) | load(&self.work.0)) != 0
    }
}

pub(super) fn probe() -> Probe {
    let machine = Machine::new(VCPUS);
    floor(ENTER, move || {
        let machine = black_box(&machine);
        let start = Instant::now();
        let changed: u32 = (0..ROUNDS).map(|_| u32::from(machine.changed())).sum();
        let time = each(start.elapsed(), ROUNDS * u32::from(VCPUS));
        if changed == 0 { Ok(time) } else { Err("something changed".into()) }
    })
}
