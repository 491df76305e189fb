//! The floor for dispatch: the minimum work for a handler table that other CPUs may change
//! concurrently.
//!
//! | loads | read-modify-writes |
//! |---|---|
//! | the table's part, the vector's handler cell, its handler, its count of runs | the cell is entered and left |
//!
//! A plain store updates the run count, because no other CPU writes it. The handler is called
//! indirectly. The gate, a word that marks the vector as running, needs two read-modify-writes,
//! because an interrupt must run on only one CPU at a time, and another CPU may remove its handler
//! concurrently.

use crate::probe::{Probe, each, floor};
use crate::word::{Word, zeros};
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

/// Name of the floor.
pub(crate) const DISPATCH: &str = "floor-dispatch";

const OPERATIONS: u32 = 4096;
const VECTORS: u32 = 64;
const BUSY: u64 = 1;

/// A vector on a separate cache line.
#[repr(align(64))]
struct Vector<W> {
    gate: W,
    handler: W,
    runs: W,
}

struct VectorTable<W> {
    /// Index of the first vector of each part of the table.
    parts: Box<[W]>,
    vectors: Box<[Vector<W>]>,
}

/// Handlers by number, supplied by the caller.
type Handlers<'a> = [&'a dyn Fn(u32)];

impl<W: Word> VectorTable<W> {
    fn new() -> Self {
        let vector = |_| Vector { gate: W::new(0), handler: W::new(0), runs: W::new(0) };
        Self { parts: zeros(256), vectors: (0..VECTORS).map(vector).collect() }
    }

    /// Runs a vector's handler. Returns `true` if the vector was free to run.
    #[inline]
    fn dispatch(&self, handlers: &Handlers<'_>, vector: u32) -> bool {
        self.try_dispatch(handlers, vector).is_some()
    }

    #[inline]
    fn try_dispatch(&self, handlers: &Handlers<'_>, number: u32) -> Option<()> {
        let part = usize::try_from(self.parts.get((number >> 8) as usize)?.load()).ok()?;
        let vector = self.vectors.get(part + (number & 0xff) as usize)?;
        let gate = vector.gate.load();
        if gate & BUSY != 0 || !vector.gate.exchange(gate, gate | BUSY) {
            return None;
        }
        let runs = vector.runs.load();
        vector.runs.store(runs + 1);
        let handler = handlers.get(usize::try_from(vector.handler.load()).ok()?)?;
        handler(number);
        vector.gate.clear(BUSY);
        Some(())
    }
}

pub(super) fn probe() -> Probe {
    let vectors = VectorTable::<AtomicU64>::new();
    floor(DISPATCH, move || {
        let vectors = black_box(&vectors);
        let nothing = |number: u32| _ = black_box(number);
        let handlers: [&dyn Fn(u32); 1] = black_box([&nothing]);
        let start = Instant::now();
        let ran: u32 =
            (0..OPERATIONS).map(|at| u32::from(vectors.dispatch(&handlers, at % VECTORS))).sum();
        let time = each(start.elapsed(), OPERATIONS);
        if ran == OPERATIONS { Ok(time) } else { Err(format!("{ran} handlers ran")) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::word::counted::{Accesses, Counted, accesses};
    use std::cell::Cell;

    #[test]
    fn dispatch_costs_four_loads_and_two_exchanges() {
        let vectors = VectorTable::<Counted>::new();
        let ran = Cell::new(0);
        let handler = |number| ran.set(number);

        let dispatched = accesses(|| vectors.dispatch(&[&handler], 63));

        assert_eq!(dispatched, (true, Accesses { loads: 4, rmws: 2 }));
        assert_eq!(ran.get(), 63);
    }

    #[test]
    fn a_running_handler_is_not_reentered() {
        let vectors = VectorTable::<Counted>::new();
        let beside = Cell::new(true);
        let handler = |number| beside.set(vectors.dispatch(&[&|_| ()], number));
        assert!(vectors.dispatch(&[&handler], 5));
        assert!(!beside.get());
    }
}
