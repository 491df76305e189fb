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

use super::words::{clear, exchange, load, zeros};
use crate::probe::{Probe, each, floor};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Name of the floor.
pub(crate) const DISPATCH: &str = "floor-dispatch";

const OPERATIONS: u32 = 4096;
const VECTORS: u32 = 64;
const BUSY: u64 = 1;

/// A vector on a separate cache line.
#[repr(align(64))]
struct Vector {
    gate: AtomicU64,
    handler: AtomicU64,
    runs: AtomicU64,
}

struct VectorTable {
    /// Index of the first vector of each part of the table.
    parts: Box<[AtomicU64]>,
    vectors: Box<[Vector]>,
}

/// Handlers by number, supplied by the caller.
type Handlers<'a> = [&'a dyn Fn(u32)];

impl VectorTable {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let vector = |_| Vector { gate: zero(), handler: zero(), runs: zero() };
        Self { parts: zeros(256), vectors: (0..VECTORS).map(vector).collect() }
    }

    /// Runs a vector's handler. Returns `true` if the vector was free to run.
    #[inline]
    fn dispatch(&self, handlers: &Handlers<'_>, vector: u32) -> bool {
        self.try_dispatch(handlers, vector).is_some()
    }

    #[inline]
    fn try_dispatch(&self, handlers: &Handlers<'_>, number: u32) -> Option<()> {
        let part = usize::try_from(load(self.parts.get((number >> 8) as usize)?)).ok()?;
        let vector = self.vectors.get(part + (number & 0xff) as usize)?;
        let gate = load(&vector.gate);
        if gate & BUSY != 0 || !exchange(&vector.gate, gate, gate | BUSY) {
            return None;
        }
        vector.runs.store(load(&vector.runs) + 1, Ordering::Release);
        let handler = handlers.get(usize::try_from(load(&vector.handler)).ok()?)?;
        handler(number);
        clear(&vector.gate, BUSY);
        Some(())
    }
}

pub(super) fn probe() -> Probe {
    let vectors = VectorTable::new();
    floor(DISPATCH, move || {
        let vectors = black_box(&vectors);
        let nothing = |number: u32| _ = black_box(number);
        let handlers: [&dyn Fn(u32); 1] = black_box([&nothing]);
        let start = Instant::now();
        let ran: u32 =
            (0..OPERATIONS).map(|at| u32::from(vectors.dispatch(&handlers, at % VECTORS))).sum();
        let time = each(start.elapsed(), OPERATIONS);
        if ran == OPERATIONS { Ok(time) } else { Err(format!("{ran} handlers ran").into()) }
    })
}
