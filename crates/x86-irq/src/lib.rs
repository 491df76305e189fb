//! x86
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod apic;
mod lock;
pub mod matrix;
pub mod message;
pub mod remapping;
pub mod vector_domain;

pub use apic::{Apic, ApicId, ApicVector, IrqState, Place};
pub use matrix::{MatrixError, Reservation, VectorMatrix};
pub use remapping::{RemapTable, RemappedVectors, RemappedVectorsConfig};
pub use vector_domain::{Arrival, Cleanup, CpuError, FIRST_SLOT, Offline, VectorDomain, VectorDomainConfig};
