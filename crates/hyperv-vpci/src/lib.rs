//! Hyper-V's virtual PCI bus, guest and host end.
//!
//! A hypervisor passes PCI functions through to its guest by a channel: both ends exchange
//! messages about functions, their resources and their interrupts. A guest never invents an
//! interrupt's message. It names the vector, and stores what the host answers.
//!
//! | module | what |
//! |---|---|
//! | [`protocol`] | the messages, parsed from and emitted to bytes |
//! | [`config_window`] | the window to the functions' configuration space |
//! | [`channel`] | packets between both ends: any transport |
//! | [`guest`] | the bus's driver and its functions' interrupts, for a kernel |
//! | [`host`] | functions offered to a guest, for a virtual machine monitor |
//! | [`ring`] | VMBus's transport: rings in shared memory |
//!
//! | feature | adds |
//! |---|---|
//! | – | all of the above, without `std`, with `alloc` |
//! | `std` | `channel::EventFd`: an eventfd as the other end's signal, on Linux |
//! | `vm-memory` | `ring::GuestRing`: a ring in guest memory, by rust-vmm's crate, which needs `std` |
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

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod channel;
pub mod config_window;
pub mod guest;
pub mod host;
pub mod protocol;
pub mod ring;
mod ring_error;

pub use msi_types;
