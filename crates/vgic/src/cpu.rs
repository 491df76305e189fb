//! The half of the model owned by a vCPU's thread: the CPU interface, either emulated in software
//! or backed by list registers.

pub(crate) mod list_registers;
pub(crate) mod listed;
pub(crate) mod paused;
pub(crate) mod system_registers;
pub(crate) mod vcpu;
