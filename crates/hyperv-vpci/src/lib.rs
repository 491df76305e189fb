//! Guest and host ends of Hyper-V's virtual PCI bus.
//!
//! A hypervisor offers PCI functions to its guest through a channel. Both ends exchange messages
//! about functions, their resources and their interrupts. A guest doesn't choose the message for an
//! interrupt itself: it asks for a message for a vector, and programs the host's answer into the
//! function.
//!
//! | module | contents |
//! |---|---|
//! | [`protocol`] | the protocol's messages, with parsers and emitters |
//! | [`channel`] | the traits of a packet transport between both ends |
//! | [`guest`] | the bus driver and the interrupts of its functions, for a kernel |
//! | [`host`] | the host that offers functions to a guest, for a virtual machine monitor |
//! | [`ring`] | the transport of VMBus: rings in shared memory |
//!
//! | feature | adds |
//! |---|---|
//! | – | all of the above, in `no_std` with `alloc` |
//! | `std` | `channel::EventFd`, which signals the other end through an eventfd, on Linux |
//! | `vm-memory` | `ring::GuestRing`, a ring in guest memory of rust-vmm's `vm-memory`, which needs `std` |
//!
//! # Example
//!
//! ```
//! use hyperv_vpci::protocol::{Request, Slot};
//!
//! let mut message = [0; 8];
//! Request::QueryResources(Slot::new(1, 2)).emit(&mut message)?;
//! assert_eq!(message, [5, 0, 0x49, 0x42, 0x41, 0, 0, 0]);
//! assert_eq!(Request::parse(&message), Ok(Request::QueryResources(Slot::new(1, 2))));
//! # Ok::<(), hyperv_vpci::protocol::ProtocolError>(())
//! ```
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(not(target_has_atomic = "64"))]
compile_error!("hyperv-vpci needs 64-bit atomics, which this target does not have");

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod channel;
pub mod guest;
pub mod host;
#[cfg(all(test, shuttle))]
mod interleavings;
pub mod protocol;
pub mod ring;

pub use msi_types;
