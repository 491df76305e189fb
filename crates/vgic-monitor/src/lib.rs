//! The libraries that a virtual machine monitor (VMM) needs for a guest's GICv3, in one dependency.
//!
//! All libraries have the same version, so their types match, and each feature is enabled in all
//! libraries that have it. The crate itself adds [`machine_state`], which saves and restores the
//! states of all libraries.
//!
//! | library | provides |
//! |---|---|
//! | [`vgic`] | the controller: [`Vgic`](vgic::Vgic) for the bus and devices, a [`Vcpu`](vgic::Vcpu) for each vCPU's thread |
//! | [`irq_routing`] | GSIs and eventfds, MSI capabilities and MSI-X tables, over `vgic` or over KVM's controller |
//! | [`vgic_kvm`] | saved states in KVM's format; explanations of interrupts of KVM's controller |
//! | [`msi_types`] | messages, identifiers, and the traits that the VMM implements, such as [`Kick`](msi_types::Kick) |
//! | [`gic_arch`] | registers, ITS commands and tables |
//!
//! # Features
//!
//! A VMM that runs as a process should enable `std`: threads that wait for others then sleep
//! instead of spinning, and on Linux, eventfds can signal GSIs and MSI-X vectors. `serde` makes
//! saved states, snapshots and explanations serializable. `binary` (implies `serde`) adds a compact
//! form of a machine's state ([`MachineState`](machine_state::MachineState)). `vm-memory` (implies
//! `std`) adds a guest memory that uses rust-vmm's crate. `kvm` (implies `std`) adds routes and
//! eventfds in Linux's KVM, and `rust-vmm` (implies `kvm`) lets them use rust-vmm's machines.
//!
//! # Example
//!
//! ```
//! use std::{error::Error, sync::Arc};
//! use vgic_monitor::irq_routing::{GsiSpace, Inputs, Router};
//! use vgic_monitor::msi_types::Kick;
//! use vgic_monitor::vgic::{GuestMemory, Vcpu, Vgic, VgicConfig, its::ItsConfig};
//!
//! /// A guest's interrupt controller.
//! pub struct Guest {
//!     /// Answers accesses to the GIC's frames: `gic.read`, `gic.write`.
//!     pub gic: Arc<Vgic>,
//!     /// One for each vCPU thread; answers accesses to the CPU interface's system registers.
//!     pub vcpus: Vec<Vcpu>,
//!     /// Routes GSIs, eventfds and MSI-X tables to SPIs and LPIs.
//!     pub router: Arc<Router>,
//! }
//!
//! pub fn create(
//!     memory: Arc<dyn GuestMemory>,
//!     kick: Arc<dyn Kick>,
//! ) -> Result<Guest, Box<dyn Error>> {
//!     let config = VgicConfig::new(4) // vCPUs
//!         .with_lpi_id_bits(Some(16))
//!         .with_its(vec![ItsConfig::new(0x0808_0000)]);
//!     let (gic, vcpus) = Vgic::new(config, memory, kick)?;
//!     let its = gic.its(0).ok_or("one ITS was configured")?;
//!     let inputs = Inputs::new(gic.clone()).with_its(its).with_explainer(gic.clone());
//!     let router = Router::new(GsiSpace::default(), inputs)?;
//!     Ok(Guest { gic, vcpus, router: Arc::new(router) })
//! }
//! ```
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod machine_state;

pub use gic_arch;
pub use irq_routing;
pub use msi_types;
pub use vgic;
pub use vgic_kvm;
