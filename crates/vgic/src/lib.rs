//! A GICv3 and ITS device model with lock-free injection, for virtual machine monitors and hypervisors.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod access;
mod attention;
mod events;
mod memory;

pub use access::{AccessWidth, BadWidth};
pub use events::{Events, FaultReason, GuestFault};
pub use memory::{GuestMemory, MemoryFault};
