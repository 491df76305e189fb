//! Drivers for the Arm GICv3: distributor, redistributors, CPU interface, LPIs and ITS, for any kernel or hypervisor.
//!
//! The kernel gives a [`Platform`] and gets typed drivers; nothing here knows an interrupt core.
#![no_std]

extern crate alloc;

pub mod lock;
mod mmio;
mod platform;

pub use mmio::{Mmio, MmioExt, Width};
pub use platform::{
    Coherence, PhysicalRegion, Platform, SystemRegisters, Table, TableLayout, TimedOut, Wait, wait_until,
};
