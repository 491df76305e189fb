//! The bare-metal images on QEMU: the drivers, judged by a GIC and PCI devices of another project.

pub mod bench;
pub mod cost;
pub mod minimal;
pub mod virt;
