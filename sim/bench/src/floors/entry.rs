//! The floor of an entry into the guest: one load for each word that says that something has
//! changed since the last exit.
//!
//! | source of change | word |
//! |---|---|
//! | an SGI, PPI, SPI or LPI becomes pending for the vCPU, or what it may take changes | the vCPU's wake-up word: its producer kicks |
//! | a command or a register left work over | the machine's number of such sources: only one vCPU is kicked |
//!
//! What the guest changed of its own CPU interface, and what it left active, the vCPU knows without
//! a look.
//!
//! One vCPU enters after the other, so each looks at a wake-up word of its own, on a cache line of
//! its own: other threads write it. The order of the loads is free: nothing here depends on
//! anything.

use crate::probe::{Probe, each, floor};
use crate::word::Word;
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

/// The name of the floor.
pub(crate) const ENTER: &str = "floor-enter";
/// The vCPUs that enter one after the other, here and in the cases.
pub(crate) const VCPUS: u16 = 32;

const ROUNDS: u32 = 256;

/// A word on a cache line of its own.
#[repr(align(64))]
struct Line<W>(W);

/// The words that all vCPUs look at before they enter their guest.
struct Machine<W> {
    wakeup: Vec<Line<W>>,
    work: Line<W>,
}

impl<W: Word> Machine<W> {
    fn new(vcpus: u16) -> Self {
        let line = || Line(W::new(0));
        Self { wakeup: (0..vcpus).map(|_| line()).collect(), work: line() }
    }

    /// Each vCPU enters: is there something new for one of them?
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
    fn each_word_is_loaded_once_for_each_vcpu() {
        let looked = accesses(|| Machine::<Counted>::new(4).changed());
        assert_eq!(looked, (false, Accesses { loads: 8, rmws: 0 }));
    }

    #[test]
    fn no_source_of_change_is_overlooked() {
        type Changes = fn(&Machine<Counted>);
        let changes: [Changes; 2] = [|all| all.wakeup[2].0.set(1), |all| all.work.0.set(1)];
        for change in changes {
            let machine = Machine::new(4);
            change(&machine);
            assert!(machine.changed());
        }
    }
}
