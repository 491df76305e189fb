//! Brings up a machine's interrupt controllers from firmware's description: starts the drivers,
//! sets up the interrupt core on top of them, and finds each device's MSI parent.
//!
//! A kernel provides a [`Description`](gic_firmware::Description), a
//! [`GicPlatform`](gic_driver::GicPlatform) for the drivers and a [`Host`](irq_domain::Host) for
//! the interrupt core. Bring-up returns an [`Irqchip`], which the kernel uses as follows:
//!
//! | when the kernel | it calls |
//! |---|---|
//! | boots | [`Irqchip::new`], once |
//! | starts a CPU (including the boot CPU) | [`Irqchip::cpu_on`], on that CPU |
//! | takes an IRQ | [`Irqchip::handle_irq`] |
//! | finds a device | [`Irqchip::pci_parent`] or [`Irqchip::device_parent`], then [`irq_domain::MsiDevice::attach`] |
//! | requests a wired interrupt | [`Irqchip::interrupts`] |
//! | requests a handler for its timer or for an IPI | [`Interrupts::request_per_cpu`], then [`PerCpuHandle::enable_here`] on each CPU |
//! | sends an interrupt to other CPUs | [`Irqchip::send_ipi`] |
//! | requests a PCI function's INTx | [`PciHost::route_intx`], then [`Interrupts::request_wired`] with [`Sharing::Shared`] |
//! | does not receive an interrupt | [`Irqchip::explain`], on the CPU that should handle it |
//! | turns a CPU off | [`Irqchip::cpu_off`], on that CPU |
//! | suspends the system | [`Irqchip::suspend`], on the last CPU; after wake-up [`Irqchip::resume`], on the same CPU; [`Irqchip::cpu_on`], on the others; then, for each device, it restores the registers of its bridges and calls [`Function::enable`] and [`irq_domain::MsiDevice::restore`] |
//!
//! The root controller is a GICv2, a GICv3 or a later version. Devices can signal messages through
//! all ITSes, direct LPIs, message-based SPIs and GICv2m frames that firmware describes. The boot
//! CPU keeps the number that the kernel has assigned, and the other CPUs are numbered in firmware
//! order.
//!
//! [`PciHost::route_intx`]: gic_firmware::PciHost::route_intx
//! [`Function::enable`]: irq_domain::pci::Function::enable
//! [`Interrupts::request_per_cpu`]: irq_domain::Interrupts::request_per_cpu
//! [`Interrupts::request_wired`]: irq_domain::Interrupts::request_wired
//! [`PerCpuHandle::enable_here`]: irq_domain::PerCpuHandle::enable_here
//! [`Sharing::Shared`]: irq_domain::Sharing::Shared
//!
//! # Example
//!
//! ```
//! use gic_bringup::Irqchip;
//! use gic_driver::{GicPlatform, SystemRegisters};
//! use gic_firmware::devicetree;
//! use irq_domain::{Host, IrqHandle, MsiDevice, MsiDeviceConfig};
//! use msi_types::{Cpu, MessageStore, RequesterId, Shape};
//! use std::{error::Error, sync::Arc};
//!
//! /// Runs on the boot CPU, which unmasks interrupts afterwards.
//! fn boot<K: GicPlatform + Host + 'static>(
//!     kernel: Arc<K>,
//!     devicetree: &[u8],
//!     registers: &impl SystemRegisters,
//! ) -> Result<Irqchip<K>, Box<dyn Error>> {
//!     let irqchip = Irqchip::new(kernel.clone(), kernel, devicetree::parse(devicetree)?)?;
//!     irqchip.cpu_on(Cpu::new(0), registers, |_| ())?;
//!     Ok(irqchip)
//! }
//!
//! /// Requests a vector for a PCI function. The driver must keep the returned values.
//! fn probe<K: GicPlatform + 'static>(
//!     irqchip: &Irqchip<K>,
//!     function: RequesterId,
//!     store: Arc<dyn MessageStore>,
//! ) -> Result<(IrqHandle, MsiDevice), Box<dyn Error>> {
//!     let host = irqchip.description().hosts.first().ok_or("no PCI")?;
//!     let parent = irqchip.pci_parent(host, function)?;
//!     let config = MsiDeviceConfig::new("nvme0", function, parent, store);
//!     let device = MsiDevice::attach(irqchip.interrupts(), config)?;
//!     let vectors = device.allocate(Shape::Independent, 1..=1)?;
//!     let handle = device.request(vectors[0].slot, "nvme0-admin", |_| ())?;
//!     Ok((handle, device))
//! }
//! ```
//! # Features
//! Each kind of controller has a feature: `its`, `direct-lpi`, `mbi`, `v2m`, `gicv2`, `mip`, and
//! `bridge-msi` for controllers inside host bridges, all on by default. Without a feature, the
//! driver isn't linked and controllers of that kind are [refused](ControllerError::NotBuilt).
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

extern crate alloc;

// Keep this module first, so that rustdoc lists the constructors of `Irqchip` before its other
// methods.
mod irqchip;

pub mod config;
mod error;
mod msi;
mod root;
mod suspend;

pub use config::{
    Absent, BridgeMsiDriver, DirectLpiDriver, GicV2Driver, ItsDriver, MbiDriver, MipDriver,
    Options, V2mDriver,
};
pub use error::{
    BringUpError, ControllerError, CpuError, DriverError, NoParent, ResumeError, SuspendError,
    Suspended,
};
pub use gic_arch;
pub use gic_driver;
pub use gic_firmware;
pub use irq_domain;
pub use irqchip::Irqchip;
pub use msi::MsiController;
pub use msi_types;
pub use root::RootGic;
pub use suspend::Started;
