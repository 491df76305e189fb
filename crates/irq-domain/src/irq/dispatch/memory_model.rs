//! Dispatch as separate symbols, whose machine code is checked against Arm's memory model.

#![expect(private_interfaces, reason = "the functions are compiled, and never called")]

pub use crate::irq::handler_cell::memory_model::*;

use super::{Deferral, Dispatched, Dispatcher};
use msi_types::{Cpu, HwIrq};

const CPU: Cpu = Cpu::new(0);
const HWIRQ: HwIrq = HwIrq::new(0);

/// Looks up the vector's cell. The last access loads the cell's state word.
#[inline(never)]
pub fn dispatched_word(dispatcher: &Dispatcher) -> bool {
    dispatcher.table.get(HWIRQ).is_some_and(|entry| entry.shared.is_busy())
}

/// Returns 2 if the handler was already running.
#[inline(never)]
pub fn dispatch(dispatcher: &Dispatcher) -> u32 {
    match dispatcher.dispatch(CPU, HWIRQ) {
        Dispatched::Deferred(Deferral::Running) => 2,
        Dispatched::Handled => 1,
        Dispatched::Deferred(Deferral::Disabled) | Dispatched::Unhandled(_) => 0,
    }
}

/// Ends a run. Returns `true` if the interrupt must be sent again.
#[inline(never)]
pub fn end_dispatched(dispatcher: &Dispatcher, seen: u32) -> bool {
    let entry = dispatcher.table.get(HWIRQ);
    entry.is_some_and(|entry| end(&entry.shared, seen))
}
