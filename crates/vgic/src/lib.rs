//! A GICv3 and ITS device model with lock-free injection, for virtual machine monitors and hypervisors.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod access;
mod atomic;
mod attention;
mod candidates;
mod config;
mod cpu_interface;
mod distributor;
mod events;
mod interrupt;
pub mod its;
mod lpi;
mod memory;
mod per_interrupt;
mod redistributor;
mod registers;
mod slot;
#[cfg(test)]
mod tests;
mod vcpu;
mod vgic;
mod wired;

pub use access::{AccessWidth, BadWidth};
pub use config::{ConfigError, CpuConfig, MAX_CPUS, RedistributorRegion, SecurityView, VgicConfig};
pub use events::{Events, FaultReason, GuestFault};
pub use memory::{GuestMemory, MemoryFault};
pub use vcpu::{Inputs, Sleep, Undefined, Vcpu};
pub use vgic::{Block, NotClaimed, ObserverTaken, Region, Vgic};
