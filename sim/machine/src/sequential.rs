//! The seam for workloads of other crates: machines whose CPUs take interrupts on the caller's
//! thread, when the caller says so.
//!
//! [`GicHardware`] is a GIC with its CPUs alone; its user brings the devices and the drivers.
//! [`BootedMachine`] is a whole machine whose devices have their vectors.

mod booted;
mod gic;

pub use crate::cpu::CpuRegisters;
pub use booted::{BootedDevice, BootedMachine};
pub use gic::{GicCpus, GicHardware};
