//! Message-signaled interrupts on x86: vector allocation, message formats, Intel's interrupt
//! remapping.
//!
//! On x86, a device signals an interrupt by writing to a local APIC: the address selects the APIC,
//! and the data selects one of the CPU's roughly 200 vectors. This crate allocates the vectors,
//! composes the messages, and inserts a remapping unit on machines that have one. The layers above
//! (the interrupt core, a device's domain) use the crate's domains through [`MsiParent`], like an
//! ITS. The crate doesn't drive local APICs itself; the kernel provides access to them through
//! [`Apic`].
//!
//! | module | what |
//! |---|---|
//! | [`matrix`] | allocation of vectors on CPUs: [`VectorMatrix`] |
//! | [`message`] | address and data in compatibility format, with 8, 15 or 32 destination bits |
//! | [`vector_domain`] | the root: [`VectorDomain`], its dispatch table, moves, CPU hotplug |
//! | [`remapping`] | the layer above it: [`RemappedVectors`], entries, [`RemapTable::translate`] |
//!
//! | | vectors alone | with remapping |
//! |---|---|---|
//! | isolation | none: any device can send any vector to any CPU | by the requester's ID |
//! | a move | rewrites the endpoint's address and data | rewrites a table entry |
//! | MultiMSI | refused | supported, and each vector moves independently |
//! | APIC IDs above 254 | if a hypervisor offers 15 bits | in x2APIC mode |
//!
//! # Example
//!
//! Here is a kernel with one CPU, and a device that signals once:
//!
//! ```
//! use core::num::NonZeroU16;
//! use msi_types::{BlockRequest, Cpu, Fit, MsiMessage, MsiParent, RequesterId, Rewrite};
//! use std::sync::Arc;
//! use x86_irq::message::{ApicMessage, DeliveryMode, DestinationFormat};
//! use x86_irq::{Apic, ApicId, ApicVector, Arrival, IrqState, LocalCpu};
//! use x86_irq::{VectorDomain, VectorDomainConfig};
//!
//! struct Kernel;
//! impl LocalCpu for Kernel {
//!     fn irq_save(&self) -> IrqState { IrqState::new(0) }
//!     fn irq_restore(&self, _: IrqState) {}
//!     fn yield_now(&self) {
//!         self.relax(); // A kernel with a scheduler yields.
//!     }
//! }
//! impl Apic for Kernel {
//!     fn send(&self, _: ApicId, _: ApicVector) { /* write the interrupt command register */ }
//!     fn is_requested(&self, _: Cpu, _: ApicVector) -> Option<bool> { Some(false) /* read IRR */ }
//!     fn request_cleanup(&self, _: Cpu) { /* set a flag for the next tick */ }
//! }
//!
//! let cpu = Cpu::new(0);
//! let domain = VectorDomain::new(VectorDomainConfig::new(NonZeroU16::MIN, Arc::new(Kernel)))?;
//! domain.online(cpu, ApicId::new(5))?;
//!
//! let nic = domain.attach(RequesterId::pci(1, 0, 0), 1)?;
//! let request = BlockRequest::new(NonZeroU16::MIN, Fit::new(Rewrite::Masked), cpu);
//! let block = domain.allocate(&nic, &request)?;
//! let message = domain.compose(&block, 0)?;
//! assert_eq!(message, MsiMessage { address: 0xfee0_5000, data: 0x20 });
//!
//! // The device writes it, the local APIC accepts it, and the trap entry looks up its hwirq.
//! let sent = ApicMessage::decode(message, DestinationFormat::Xapic)?;
//! let DeliveryMode::Fixed(vector) = sent.delivery else { unreachable!() };
//! assert_eq!(domain.arrive(cpu, vector), Arrival::Deliver(block.first()));
//!
//! domain.free(&nic, block);
//! domain.detach(nic);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`MsiParent`]: msi_types::MsiParent
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod matrix;
pub mod message;
pub mod remapping;
pub mod vector_domain;

pub use crate::message::{Apic, ApicId, ApicVector, CpuVector};
pub use matrix::{MatrixError, VectorMatrix};
pub use msi_types;
#[doc(no_inline)]
pub use msi_types::{IrqState, LocalCpu};
pub use remapping::{RemapTable, RemappedVectors, RemappedVectorsConfig};
pub use vector_domain::{
    Arrival, Cleanup, CpuError, FIRST_HWIRQ, Offline, VectorDomain, VectorDomainConfig,
};
