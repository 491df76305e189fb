//! Runs the bare-metal images on QEMU, so that the drivers are tested against another project's GIC
//! and PCI devices.

pub mod bench;
mod board;
pub mod cost;
pub mod imx8mp;
pub mod installed;
pub mod minimal;
pub mod virt;
