//! A machine with a GIC that punishes. What the architecture calls UNPREDICTABLE panics, writes take
//! effect late, and a driver that relies on more than the architecture promises fails its test:
//!
//! - Memory has three sides: CPUs', a coherent controller's, a non-coherent controller's. A store
//!   that was not published, or not cleaned, is invisible to the controller. What a controller
//!   writes is invisible to CPUs before they observe it. Memory is never allocated twice, its release
//!   is checked, and an access beyond it panics. An allocation may fail, or be misplaced.
//! - A redistributor uses the configuration that it cached at the last invalidation: none or all at
//!   first. It ignores no access while it sleeps, while `RWP` or `SYNCR.Busy` is 1, to tables while
//!   LPIs are enabled, or to registers that it does not have: each panics. It writes its pending
//!   table only where it must, and reads it when LPIs are enabled; a table that was promised to be
//!   zero must be.
//! - An ITS executes commands as they were when they were posted, at its pace, and they take effect
//!   at redistributors only at a SYNC. It checks tables, alignment, order, and what is given back.
//! - Hardware is not waited for with interrupts masked, a task's service is not called so, and
//!   interrupt states are restored in reverse order.

mod board;
mod entries;
mod execution;
mod interpreter;
mod memory;
mod redistributor;
mod registers;

pub(crate) use board::{
    Board, HIGH_REDISTRIBUTOR, ITS, ITS_STRIDE, REDISTRIBUTOR, interrupt_at, run_on,
    while_allocating,
};
pub(crate) use interpreter::{Hardware, Traffic};
pub(crate) use redistributor::Redistributor;
