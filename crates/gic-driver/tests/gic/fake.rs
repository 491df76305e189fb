//! A fake machine with a GIC that is as unforgiving as possible. The fake panics where the
//! architecture specifies UNPREDICTABLE behavior, and lets writes take effect late. A driver that
//! relies on more than the architecture guarantees will fail its tests:
//!
//! - CPUs, coherent controllers and non-coherent controllers have different views of memory. A
//!   controller can't see a store that was not published or not cleaned, and CPUs can't see a
//!   controller's store until they observe it. No address is allocated twice, releases are checked,
//!   and an access beyond an allocation panics. An allocation may fail, or be misaligned. A
//!   previous kernel's tables can be adopted only if their memory is reserved.
//! - A distributor has one or two security states, each with its own view of groups, priorities and
//!   `CTLR`. Disables and routes take effect late, while `RWP` is 1. An access panics if it has the
//!   wrong size, or if it targets a register that does not exist or another chip's alias. The fake
//!   also panics if `CTLR` is written while `RWP` is 1, if affinity routing changes while a group
//!   is enabled, if a group is enabled without affinity routing, and if the trigger of an enabled
//!   interrupt changes.
//! - A redistributor sleeps after reset and wakes up late. The redistributor's power may be off,
//!   and `WAKER` may be owned by firmware or broken. The redistributor uses the LPI configuration
//!   that it cached at the last invalidation; initially, it has cached the configurations of either
//!   no LPI or all LPIs. `EnableLPIs` takes effect with the next access. An access panics if the
//!   redistributor sleeps, if `RWP` or `SYNCR.Busy` is 1, if the access is to a table register
//!   while LPIs are enabled, if it has the wrong size, or if the register does not exist. Pending
//!   LPIs are written to the pending table when LPIs are disabled, and read from it when LPIs are
//!   enabled. A pending table that the driver declared to be zero must be zero. Changes of a vPE's
//!   residency take effect late, while `Dirty` is 1.
//! - A CPU interface checks that interrupts are ended in the right order, that deactivations match
//!   `EOImode`, that read-only registers are not written and write-only ones not read, and that
//!   `SRE` is set first (in both `SRE` registers at EL2). Fields that are not implemented read as
//!   zero.
//! - An ITS executes commands at its own pace, with the contents that they had when they were
//!   posted. Commands take effect at redistributors only at a SYNC, and commands for vPEs only at a
//!   VSYNC. The ITS checks tables, their
//!   alignment, the order of commands, and that memory is not released while in use.
//! - The platform panics if the driver waits for hardware or calls a task-only service while
//!   interrupts are masked, if interrupt states are not restored in reverse order, and if a thread
//!   takes a lock that it already holds.

mod bank;
mod board;
mod cpu_interface;
mod distributor;
mod effect;
mod execution;
mod interpreter;
mod memory;
mod power;
mod redistributor;
mod registers;
mod virtual_execution;

pub(crate) use bank::{Bank, InterruptState};
pub(crate) use board::{
    Board, DISTRIBUTOR, HIGH_REDISTRIBUTOR, ITS, ITS_STRIDE, MIP, Moment, REDISTRIBUTOR,
    interrupt_at, run_on, while_allocating,
};
pub(crate) use cpu_interface::FakeRegisters;
pub(crate) use distributor::{FakeDistributor, Security};
pub(crate) use interpreter::{Hardware, Traffic};
pub(crate) use memory::View;
pub(crate) use redistributor::FakeRedistributor;
pub(crate) use registers::BoardFrame;
pub(crate) use virtual_execution::FakeVlpiFrame;

/// Number of reads until a slow register shows its new state.
const LAG: u32 = 3;
