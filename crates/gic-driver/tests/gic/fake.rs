//! A machine with a GIC that punishes. What the architecture calls UNPREDICTABLE panics, writes
//! take effect late, and a driver that relies on more than the architecture promises fails its
//! test:
//!
//! - Memory has three sides: the CPUs', a coherent controller's and a non-coherent controller's. A
//!   store that was not published, or not cleaned, is invisible to the controller. A controller's
//!   store is invisible to CPUs until they observe it. No address is used twice, releases are
//!   checked, and an access beyond an allocation panics. An allocation may fail, or be misplaced.
//! - A redistributor uses the configuration that it cached at the last invalidation; at first it
//!   has cached none, or all. An access panics while the redistributor sleeps, while `RWP` or
//!   `SYNCR.Busy` is 1, to table registers while LPIs are enabled, and to registers that do not
//!   exist. Pending LPIs are written to the table when LPIs are disabled, and read when they are
//!   enabled. A table that was promised to be zero must be zero.
//! - An ITS executes commands as they were when they were posted, at its own pace, and they take
//!   effect at redistributors only at a SYNC. It checks tables, their alignment, the order of
//!   commands, and memory that is released.
//! - The platform panics if hardware is waited for with interrupts masked, if a service for tasks
//!   is called then, and if interrupt states are not restored in reverse order.

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
