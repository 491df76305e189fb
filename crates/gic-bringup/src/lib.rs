//! From what firmware describes to interrupts that arrive: a machine's interrupt controllers,
//! running, the interrupt core over them, and each device's parent.
//!
//! A kernel gives a [`Description`](gic_firmware::Description), a
//! [`GicPlatform`](gic_driver::GicPlatform) for the drivers and a [`Host`](irq_domain::Host) for
//! the interrupt core. It gets an [`Irqchip`]:
//!
//! | the kernel | calls |
//! |---|---|
//! | boots | [`Irqchip::new`], once |
//! | starts a CPU, the boot CPU too | [`Irqchip::cpu_on`], on that CPU |
//! | takes an IRQ | [`Irqchip::handle_irq`] |
//! | finds a device | [`Irqchip::pci_parent`] or [`Irqchip::device_parent`], then [`irq_domain::MsiDevice::attach`] |
//! | requests a wired interrupt | [`Irqchip::interrupts`] |
//! | requests its timer's or an IPI's handler | [`Interrupts::request_per_cpu`], then [`PerCpuHandle::enable_here`] on each CPU |
//! | sends an interrupt to CPUs | [`Irqchip::send_ipi`] |
//! | requests a PCI function's INTx | [`PciHost::route_intx`], then [`Interrupts::request_wired`] with [`Sharing::Shared`] |
//! | turns a CPU off | [`Irqchip::cpu_off`], on that CPU |
//! | suspends the system | [`Irqchip::suspend`], on the last CPU; [`Irqchip::resume`], there; [`Irqchip::cpu_on`], on the others; then, for each device, its bridges' registers, [`Function::enable`] and [`irq_domain::MsiDevice::restore`] |
//!
//! The root controller is a GICv2, or a GICv3 or later; messages are delivered by ITSes, direct
//! LPIs, message-based SPIs and GICv2m frames, as firmware describes them. The boot CPU has the
//! number that the kernel assigns to it; the other CPUs are numbered in the order in which firmware
//! lists them.
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
//! /// On the boot CPU, which unmasks interrupts afterwards.
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
//! /// A PCI function gets a vector. The device keeps what is returned.
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
//! One feature exists for each kind of controller, and all are on by default: `its`, `direct-lpi`,
//! `mbi`, `v2m` and `gicv2`. A kernel that disables one does not link its driver, and a controller
//! of that kind is [refused](ControllerError::NotBuilt).
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod config;
mod cpu;
mod driver;
mod error;
mod irqchip;
mod msi;
mod options;
mod priority;
mod root;
mod suspend;
mod suspended;

pub use cpu::Started;
pub use driver::{Absent, DirectLpiDriver, GicV2Driver, ItsDriver, MbiDriver, V2mDriver};
pub use error::{
    BringUpError, ControllerError, CpuError, NoParent, PriorityError, ResumeError, StepError,
    SuspendError,
};
pub use gic_arch;
pub use gic_driver;
pub use gic_firmware;
pub use irq_domain;
pub use irqchip::Irqchip;
pub use msi::MsiController;
pub use msi_types;
pub use options::Options;
pub use root::RootGic;
pub use suspended::Suspended;
