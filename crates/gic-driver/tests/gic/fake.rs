//! A fake machine with a GIC that is as unforgiving as possible. It panics where the architecture
//! says UNPREDICTABLE, and writes take effect late. A driver that relies on more than the
//! architecture guarantees will fail its tests:
//!
//! - Memory looks different to CPUs, coherent controllers and non-coherent controllers. A
//!   controller can't see a store that was not published or not cleaned, and CPUs can't see a
//!   controller's store until they observe it. No address is used twice, releases are checked, and
//!   an access beyond an allocation panics. An allocation may fail, or be misaligned. A previous
//!   kernel's tables can be adopted only if they are reserved.
//! - A distributor has one or two security states, each with its own view of groups, priorities and
//!   `CTLR`. Disables and routes take effect late, while `RWP` is 1. An access panics if it has the
//!   wrong size, or if it targets a register that does not exist or another chip's alias. The fake
//!   also panics if `CTLR` is written while `RWP` is 1, if affinity routing changes while a group
//!   is enabled, if a group is enabled without affinity routing, and if the trigger of an enabled
//!   interrupt changes.
//! - A redistributor sleeps after reset and wakes up late. Its power may be off, and `WAKER` may be
//!   owned by firmware or broken. It uses the configuration cached at the last invalidation;
//!   initially, either no LPI is cached or all are. `EnableLPIs` takes effect with the next access.
//!   An access panics while the redistributor sleeps, while `RWP` or `SYNCR.Busy` is 1, to table
//!   registers while LPIs are enabled, with the wrong size, and to registers that do not exist.
//!   Pending LPIs are written to the table when LPIs are disabled, and read when they are enabled.
//!   A table that was declared to be zero must be zero. Changes of a vPE's residency take effect
//!   late.
//! - A CPU interface checks the order of ends, that deactivations match `EOImode`, the direction of
//!   accesses, and that `SRE` is set first (both `SRE` registers at EL2). Fields that are not
//!   implemented read as zero.
//! - An ITS executes commands at its own pace, and as they were when they were posted. They take
//!   effect at redistributors only at a SYNC. The ITS checks tables, their alignment, the order of
//!   commands, and that memory is not released while in use.
//! - The platform panics if the driver waits for hardware or calls a task-only service while
//!   interrupts are masked, if interrupt states are not restored in reverse order, and if a thread
//!   takes a lock that it already holds.

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

/// Number of reads for which a slow register still shows its old state, plus one.
const LAG: u32 = 3;
