//! A small hypervisor at EL2, which runs an unmodified Linux on `vgic`'s virtual GIC and uses the
//! drivers of `gic-driver`. `README.md` explains the path from the reset vector to the guest's
//! first interrupt. Two libraries contain what does not depend on the machine: `el2-vm` and
//! `el2-passthrough`.
#![no_std]
#![no_main]

extern crate alloc;

mod boot;
mod controller;
mod devicetree;
mod flash;
mod fw_cfg;
mod options;
mod pl011;
mod uart;
mod virt;
mod virtio;

image_rt::image!(boot::main);
