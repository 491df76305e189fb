//! Assigns PCI functions to the guests of [`el2_vm`], and confines their DMA with an SMMU, which a
//! guest that runs alone may own instead. Like `el2-vm`, this is a part of our hypervisor, and no
//! library for others.
//!
//! A board [finds](candidates) the functions, [deals](deal) them out, [confines](confine) each
//! guest's, and [assigns](Pci::assign) them. The guest's [`Devices`](el2_vm::Devices) then pass
//! accesses to its [`Pci`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod candidates;
mod dma;
mod function;
mod guest_smmu;
mod messages;
mod pci;

pub use candidates::{Candidate, candidates, confine, deal};
pub use guest_smmu::GuestSmmu;
pub use pci::Pci;
