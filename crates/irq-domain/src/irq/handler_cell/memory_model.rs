//! The handler cell's steps as separate symbols, whose machine code is checked against Arm's memory
//! model.
// UNSAFETY: `HandlerCell::publish` requires that the caller has changed the state word to CHANGING.
// In the litmus tests that call it separately, the initial state satisfies this contract.

#![expect(private_interfaces, reason = "the functions are compiled, and never called")]
#![expect(unsafe_code, reason = "a step of the installation has a contract")]
#![expect(missing_docs, reason = "each function only calls the function that it is named after")]

use super::{HandlerCell, NotEntered, Pinned, Running, WhenBusy};
use crate::sync::SeqCst;
use core::mem::forget;
use core::num::NonZeroU64;

/// A cell whose value is a single word, which is zero if no value is installed.
type Cell = HandlerCell<NonZeroU64>;

#[inline(never)]
pub fn word(cell: &Cell) -> u32 {
    cell.word.load(SeqCst)
}

#[inline(never)]
pub fn value(cell: &Cell) -> u64 {
    let pinned = Pinned { cell };
    let value = pinned.get();
    forget(pinned);
    value
}

/// Reads the value and ends the run, which began with the word `seen`.
#[inline(never)]
pub fn finish(cell: &Cell, seen: u32) -> u64 {
    let running = Running { cell, word: seen };
    let value = running.get();
    forget(running.leave());
    value
}

/// Installs a value for an edge-triggered interrupt. Returns `false` if the cell was not vacant.
#[inline(never)]
pub fn install(cell: &Cell, value: NonZeroU64) -> bool {
    cell.install(value, WhenBusy::Mark).is_ok()
}

/// Ends an installation that has changed the word from vacant to CHANGING.
#[inline(never)]
pub fn publish(cell: &Cell, value: NonZeroU64) {
    // SAFETY: The caller has changed the word.
    unsafe { cell.publish(value, WhenBusy::Mark) };
}

/// Returns `true` if an arrival must be sent again.
#[inline(never)]
pub fn enable(cell: &Cell) -> bool {
    cell.enable()
}

/// Returns 1 if the arrival entered the cell, 2 if the cell was busy, 3 if it was disabled or
/// awaited, and 0 otherwise.
#[inline(never)]
pub fn arrive(cell: &Cell) -> u32 {
    match cell.enter() {
        Ok(running) => {
            forget(running);
            1
        }
        Err(NotEntered::Busy) => 2,
        Err(NotEntered::Disabled) => 3,
        Err(NotEntered::Absent(_)) => 0,
    }
}

/// Ends a run that began with the word `seen`.
#[inline(never)]
pub fn end_run(cell: &Cell, seen: u32) -> bool {
    end(cell, seen)
}

pub(crate) fn end<T>(cell: &HandlerCell<T>, seen: u32) -> bool {
    cell.end_run(seen)
}

/// Returns the value, or 0 if it is still in use.
#[inline(never)]
pub fn take(cell: &Cell) -> u64 {
    cell.take().map_or(0, NonZeroU64::get)
}
