//! Runs the bare-metal images on QEMU, so that the drivers are judged by another project's GIC and
//! PCI devices.

pub mod bench;
pub mod cost;
pub mod minimal;
pub mod virt;
