//! Types shared by the model and its VMM: guest memory, register accesses, progress, kicks, and the
//! log of guest errors.

pub(crate) mod access;
pub(crate) mod direct;
pub(crate) mod events;
pub(crate) mod kicks;
pub(crate) mod memory;
pub(crate) mod progress;
#[cfg(feature = "vm-memory")]
pub(crate) mod rust_vmm;
