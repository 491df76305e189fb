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

use crate::probe::{Probe, each, floor};
use crate::word::Word;
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
struct Line<W>(W);

/// The words that vCPUs load before entering their guests.
struct Machine<W> {
    wakeup: Vec<Line<W>>,
    work: Line<W>,
}

impl<W: Word> Machine<W> {
    fn new(vcpus: u16) -> Self {
        let line = || Line(W::new(0));
        Self { wakeup: (0..vcpus).map(|_| line()).collect(), work: line() }
    }

    /// Performs the loads of each vCPU's entry. Returns `true` if anything has changed for any
    /// vCPU.
    #[inline]
    fn changed(&self) -> bool {
        self.wakeup.iter().fold(0, |seen, own| seen | own.0.load() | self.work.0.load()) != 0
    }
}

pub(super) fn probe() -> Probe {
    let machine = Machine::<AtomicU64>::new(VCPUS);
    floor(ENTER, move || {
        let machine = black_box(&machine);
        let start = Instant::now();
        let changed: u32 = (0..ROUNDS).map(|_| u32::from(machine.changed())).sum();
        let time = each(start.elapsed(), ROUNDS * u32::from(VCPUS));
        if changed == 0 { Ok(time) } else { Err("something changed".to_owned()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::counted::{Accesses, Counted, accesses};

    #[test]
    fn checking_for_changes_loads_two_words_per_vcpu() {
        let looked = accesses(|| Machine::<Counted>::new(4).changed());
        assert_eq!(looked, (false, Accesses { loads: 8, rmws: 0 }));
    }

    #[test]
    fn a_change_in_any_word_is_detected() {
        type Changes = fn(&Machine<Counted>);
        let changes: [Changes; 2] = [|all| all.wakeup[2].0.set(1), |all| all.work.0.set(1)];
        for change in changes {
            let machine = Machine::new(4);
            change(&machine);
            assert!(machine.changed());
        }
    }
}
