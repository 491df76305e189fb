//! A machine with a GIC that punishes. What the architecture calls UNPREDICTABLE panics, writes
//! take effect late, and a driver that relies on more than the architecture promises fails its
//! test:
//!
//! - Memory has three sides: the CPUs', a coherent controller's and a non-coherent controller's. A
//!   store that was not published, or not cleaned, is invisible to the controller. A controller's
//!   store is invisible to CPUs until they observe it. No address is used twice, releases are
//!   checked, and an access beyond an allocation panics. An allocation may fail, or be misplaced.
//!   Tables of a previous kernel can be adopted only if they are reserved.
//! - A distributor has one or two security states, each with its own view of groups, priorities and
//!   `CTLR`. Disables and routes take effect late, while `RWP` is 1. An access panics that has the
//!   wrong size, or goes to a register that does not exist or to another chip's alias. So do a
//!   write of `CTLR` while `RWP` is 1, affinity routing that changes while a group is enabled, a
//!   group that is enabled without affinity routing, and the trigger of an enabled interrupt that
//!   changes.
//! - A redistributor sleeps after reset and wakes late; its power may be off, and `WAKER` kept by
//!   firmware or broken. It uses the configuration that it cached at the last invalidation; at
//!   first it has cached none, or all. `EnableLPIs` takes effect with the next access. An access
//!   panics while the redistributor sleeps, while `RWP` or `SYNCR.Busy` is 1, to table registers
//!   while LPIs are enabled, of the wrong size, and to registers that do not exist. Pending LPIs
//!   are written to the table when LPIs are disabled, and read when they are enabled. A table that
//!   was promised to be zero must be zero. Changes of a vPE's residency take effect late.
//! - A CPU interface checks the order of ends, deactivations against `EOImode`, the direction of
//!   accesses, and that `SRE` is set first, at EL2 both. Fields that it lacks read back as zero.
//! - An ITS executes commands as they were when they were posted, at its own pace, and they take
//!   effect at redistributors only at a SYNC. It checks tables, their alignment, the order of
//!   commands, and memory that is released.
//! - The platform panics if hardware is waited for with interrupts masked, if a service for tasks
//!   is called then, if interrupt states are not restored in reverse order, and if a lock is taken
//!   by its holder.

mod bank;
mod board;
mod cpu_interface;
mod distributor;
mod effect;
mod entries;
mod execution;
mod interpreter;
mod memory;
mod power;
mod redistributor;
mod registers;
mod vlpi;

pub(crate) use bank::{Bank, InterruptState};
pub(crate) use board::{
    Board, DISTRIBUTOR, HIGH_REDISTRIBUTOR, ITS, ITS_STRIDE, REDISTRIBUTOR, interrupt_at, run_on,
    while_allocating,
};
pub(crate) use cpu_interface::FakeRegisters;
pub(crate) use distributor::{FakeDistributor, Security};
pub(crate) use interpreter::{Hardware, Traffic};
pub(crate) use memory::View;
pub(crate) use redistributor::FakeRedistributor;
pub(crate) use registers::BoardFrame;
pub(crate) use vlpi::FakeVlpiFrame;

/// One more than the number of reads that still show the old state of a slow register.
const LAG: u32 = 3;
