//! A small hypervisor at EL2, which runs an unmodified Linux on `vgic`'s virtual GIC and uses the
//! drivers of `gic-driver`. `README.md` explains the path from the reset vector to the guest's
//! first interrupt.
#![no_std]
#![no_main]

extern crate alloc;

mod boot;
mod context;
mod controller;
mod debug;
mod devicetree;
mod dma;
mod exits;
mod faults;
mod flash;
mod gic;
mod guest;
mod guest_smmu;
mod hypervisor_timer;
mod id_registers;
mod inject;
mod instruction;
mod interrupts;
mod irqchip;
mod layout;
mod linked;
mod moving;
mod options;
mod passthrough;
mod pci;
mod pl011;
mod power;
mod psci;
mod quick;
mod ram;
mod recorder;
mod scheduler;
mod standstill;
mod syndrome;
mod tables;
mod trace;
mod traps;
mod vcpu;
mod vectors;
mod virtio;
mod virtual_interface;

image_rt::image!(boot::main);
