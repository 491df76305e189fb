//! The floor of an entry into the guest: one load for each source of change since the last exit.
//!
//! | source | word |
//! |---|---|
//! | an SGI or PPI of the vCPU, or an SPI that it may take, changes | the vCPU's candidates |
//! | an LPI becomes pending | the ready levels |
//! | a command or a register left work over | the number of such sources |
//!
//! What the guest changed of its own CPU interface, and what it left active, the vCPU knows without
//! a look. Groups and the redistributor's sleep decide about what is pending, so they need no look
//! where nothing is.
//!
//! Each word is on a cache line of its own, as each has other writers. The order of the loads is
//! free: nothing here depends on anything.

use super::floor;
use crate::word::Word;
use crate::{Probe, each};
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

/// The name of the floor.
pub(crate) const ENTER: &str = "floor-enter";

const OPERATIONS: u32 = 8192;

/// A word on a cache line of its own.
#[repr(align(64))]
struct Source<W>(W);

/// What a vCPU looks at before it enters the guest.
struct Sources<W> {
    candidates: Source<W>,
    levels: Source<W>,
    work: Source<W>,
}

impl<W: Word> Sources<W> {
    fn new() -> Self {
        let source = || Source(W::new(0));
        Self { candidates: source(), levels: source(), work: source() }
    }

    /// Is there something new?
    #[inline]
    fn changed(&self) -> bool {
        let Self { candidates, levels, work } = self;
        [candidates, levels, work].into_iter().fold(0, |seen, source| seen | source.0.load()) != 0
    }
}

pub(super) fn probe() -> Probe {
    let sources = Sources::<AtomicU64>::new();
    floor(ENTER, move || {
        let sources = black_box(&sources);
        let start = Instant::now();
        let changed: u32 = (0..OPERATIONS).map(|_| u32::from(sources.changed())).sum();
        let time = each(start.elapsed(), OPERATIONS);
        if changed == 0 { Ok(time) } else { Err("something changed".to_owned()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::counted::{Accesses, Counted, accesses};

    #[test]
    fn each_source_of_change_is_loaded_once() {
        let looked = accesses(|| Sources::<Counted>::new().changed());
        assert_eq!(looked, (false, Accesses { loads: 3, rmws: 0 }));
    }

    #[test]
    fn no_source_of_change_is_overlooked() {
        type Changes = fn(&Sources<Counted>);
        let changes: [Changes; 3] =
            [|all| all.candidates.0.set(1), |all| all.levels.0.set(1), |all| all.work.0.set(1)];
        for change in changes {
            let sources = Sources::new();
            change(&sources);
            assert!(sources.changed());
        }
    }
}
