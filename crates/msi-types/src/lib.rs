//! The vocabulary of message-signaled interrupts.
//!
//! A device raises an interrupt by writing 32 bits (the *data*) to an address (the *doorbell*).
//! This crate has a type for each part of that write and for each party involved in it:
//! [`MsiMessage`], [`RequesterId`], [`DeviceId`], [`EventId`], [`HwIrq`], [`Gsi`]. The crate also
//! defines the layouts in which PCI functions store messages ([`pci`]), and the interfaces between
//! controllers, endpoints and device models. It checks whether a controller suits a device
//! ([`negotiate`]) and explains why an interrupt does not arrive ([`explain`]). It doesn't depend on
//! any controller and allocates nothing, so drivers, device models, kernels and VMMs can all build
//! on it.
//!
//! | interface | between |
//! |---|---|
//! | [`MsiParent`] | an interrupt controller (or a layer over it) and a device's vectors |
//! | [`WiredParent`] | the root controller and the drivers that turn messages into wired interrupts (MBI, GICv2m) |
//! | [`MessageStore`] | a device's vectors and the registers or memory that hold its messages |
//! | [`SignalMsi`], [`SetLine`] | a device model and an interrupt controller model |
//! | [`LocalCpu`] | a kernel and the interrupt cores and drivers that run on it |
//! | [`Kick`], [`LineObserver`] | an interrupt controller model and the virtual machine monitor |
//! | [`trace::Observer`] | any of these interfaces and a tool that traces messages |
//!
//! # Contexts
//! All Doorbell crates document the calling context of an operation in one of four forms:
//!
//! | form | the caller | the operation |
//! |---|---|---|
//! | `Context: any.` | may run anywhere: in a handler, with interrupts masked, in a task | is bounded, and must not sleep or allocate |
//! | `Context: hard IRQ.` | must be the CPU's interrupt path, with interrupts masked | is bounded, and must not sleep or allocate |
//! | `Context: task; may sleep.` | must be a task with interrupts unmasked, and must not hold a lock that a handler takes | may wait for hardware, other CPUs or locks, and may allocate |
//! | `Context: task; interrupts may be masked; must not sleep or allocate.` | must be a task, and may have interrupts masked: a CPU that starts or stops | must not sleep or allocate; waits for hardware are bounded |
//!
//! # Example
//!
//! A device model that sends a message to an ITS that it knows only through a trait:
//!
//! ```
//! use msi_types::{Delivery, DeviceId, MsiMessage, SignalMsi};
//!
//! struct Recorder;
//! impl SignalMsi<DeviceId> for Recorder {
//!     fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
//!         assert_eq!((from, message.data), (DeviceId::new(0x12), 9));
//!         Delivery::Pending
//!     }
//! }
//!
//! let parent: &dyn SignalMsi<DeviceId> = &Recorder;
//! let message = MsiMessage { address: 0x0809_0040, data: 9 };
//! assert_eq!(parent.signal_msi(DeviceId::new(0x12), message), Delivery::Pending);
//! ```
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod error;
pub mod explain;
mod ids;
mod interrupt;
mod isolation;
mod local_cpu;
mod negotiation;
mod parent;
pub mod pci;
mod proof;
mod region;
mod setters;
mod store;
mod surroundings;
pub mod trace;

pub use error::{ControllerFault, MsiError};
pub use ids::{Cpu, DeviceId, EventId, Gsi, HwIrq, NoIdentity, RequesterId};
pub use interrupt::{
    Delivery, Kick, Level, LevelMessages, Line, LineObserver, MsiMessage, Pending, SetLine,
    SignalMsi, Trigger,
};
pub use isolation::{
    DmaIsolation, DoorbellPage, Granule, IsolatingMechanism, Isolation, NotDmaIsolated, NotIsolated,
};
pub use local_cpu::{IrqState, LocalCpu, TaskContext};
pub use negotiation::{Capabilities, Capability, Mismatch, Properties, Property, Tier, negotiate};
pub use parent::{
    Attachment, BlockRequest, HwIrqBlock, Initially, Move, MoveOutcome, MsiParent, Shape,
    WiredParent,
};
pub use proof::{DmaIsolated, InterruptIsolated};
pub use region::Region;
pub use store::{
    FastMask, Fit, Masking, MessageStore, Rewrite, SlotState, Storage, StoreError, StoreUpdate,
};
pub use surroundings::{Hypervisor, Surroundings};
