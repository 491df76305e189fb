//! Uses Linux's KVM to judge Doorbell's GIC: the same guest runs on both, and each restores the
//! state that the other one saved.
//!
//! The program in this package is the only process on a small arm64 Linux that QEMU emulates. The
//! program runs a guest that sets up KVM's GICv3 and two ITSes, saves registers and tables through
//! KVM's device attributes, and restores them on other machines. A [`Snapshot`] also has a text
//! form, which is used to store the state of a real KVM as test data.
//!
//! # Example
//!
//! ```
//! use vgic_kvm::abi::Attribute;
//! use kvm_judge::Snapshot;
//! use vgic_kvm::KvmDevice;
//!
//! let snapshot: Snapshot = "gicv3 1 0x0 0x12\nmemory 0x40020000 0100000000000080\n".parse()?;
//! assert_eq!(snapshot.get(KvmDevice::Gic, Attribute::Distributor { offset: 0 }), Some(0x12));
//! # Ok::<(), kvm_judge::Failure>(())
//! ```
// Only `kvm.rs` and its submodules use `unsafe`, because the kernel accesses memory there, and the
// guest's program is written in assembly.
#![deny(unsafe_code)]

pub mod damage;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
pub mod kvm;
pub mod layout;
mod machine;
pub mod memory;
pub mod model;
mod operation;
pub mod procedure;
pub mod saving;
pub mod scenario;
mod snapshot;
#[cfg(test)]
mod tests;

pub use machine::Machine;
pub use operation::Operation;
pub use snapshot::Snapshot;

/// A failure in the machine itself, rather than in its guest.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
