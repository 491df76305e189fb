//! The half of the model that a vCPU's thread owns: the CPU interface, emulated in software or
//! backed by list registers.

pub(crate) mod cpu_interface;
pub(crate) mod list_registers;
pub(crate) mod listed;
pub(crate) mod system_registers;
pub(crate) mod vcpu;
