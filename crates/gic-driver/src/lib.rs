//! Drivers for the Arm GICv3: distributor, redistributors, CPU interface, LPIs and ITS, for any kernel or hypervisor.
//!
//! The kernel gives a [`Platform`] and gets typed drivers; nothing here knows an interrupt core.
#![no_std]

extern crate alloc;

mod block_allocator;
pub mod cpu_interface;
pub mod distributor;
pub mod errata;
mod error;
#[cfg(test)]
mod fake;
mod frame;
pub mod gic;
mod interrupt;
pub mod its;
pub mod lock;
pub mod lpi;
mod mmio;
mod platform;
pub mod redistributor;
mod saved;
#[cfg(target_arch = "aarch64")]
pub mod sysreg;

pub use block_allocator::{Alignment, BlockAllocator, BlockError};
pub use cpu_interface::CpuInterface;
pub use distributor::{Distributor, Route, SecurityView};
pub use error::{Block, GicError};
pub use gic::{Gic, GicConfig, RedistributorInfo};
pub use interrupt::{Group, Interrupt};
pub use its::{Its, ItsConfig, ItsError, ItsMsiParent};
pub use lock::IrqLock;
pub use lpi::{LpiError, LpiRange, Lpis};
pub use mmio::{Mmio, MmioExt, RawMmio, Width};
pub use platform::{
    Coherence, PhysicalRegion, Platform, SystemRegisters, Table, TableLayout, TimedOut, Wait, wait_until,
};
pub use redistributor::{Redistributor, RedistributorRegion, TableAccess};
pub use saved::{InterruptBlock, PrivateState, SharedBlock};
