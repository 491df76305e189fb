//! Machines on which other crates run their own workloads. The CPUs take interrupts on the caller's
//! thread, and only when the caller asks them to.
//!
//! [`GicHardware`] consists of a GIC and its CPUs; the user supplies the devices and drivers.
//! [`BootedMachine`] is a whole machine whose devices have their vectors.

mod booted;
mod gic;

pub use crate::cpu::CpuRegisters;
pub use booted::{BootedDevice, BootedMachine};
pub use gic::{GicCpus, GicHardware};
