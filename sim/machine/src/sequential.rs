//! A GIC and its CPUs, on which tests run their own devices and drivers. The CPUs take interrupts
//! on the caller's thread, and only when the caller asks them to.

mod gic;

pub use crate::cpu::CpuRegisters;
pub use crate::system::silent_fault;
pub use gic::{GicCpus, GicHardware};
