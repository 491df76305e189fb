//! Machines for other crates' workloads. Their CPUs take interrupts on the caller's thread, and
//! only when asked to.
//!
//! [`GicHardware`] is a GIC with its CPUs only; the user supplies the devices and drivers.
//! [`BootedMachine`] is a whole machine whose devices have their vectors.

mod booted;
mod gic;

pub use crate::cpu::CpuRegisters;
pub use booted::{BootedDevice, BootedMachine};
pub use gic::{GicCpus, GicHardware};
