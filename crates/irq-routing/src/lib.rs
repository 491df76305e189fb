//! GSI routing for VMMs, hypervisors and device models.
//!
//! Interrupts of a virtual machine are numbered in three unrelated namespaces. This crate gives
//! each namespace its own type and translates GSIs into the other two:
//!
//! | namespace | used by | type |
//! |---|---|---|
//! | GSI | the VMM and its interrupt back end | [`Gsi`](msi_types::Gsi); sparse |
//! | INTID | the guest's interrupt controller: SPIs, LPIs | [`Pin`] for SPIs; the guest alone assigns LPIs |
//! | DeviceID and EventID | a device's message, as an ITS sees it | [`RoutedMessage`] |
//!
//! A [`Router`] holds the routes for an interrupt controller model in this process, and signals the
//! model's [`Inputs`]. Look-ups take no lock and allocate nothing, and the cost of a change does
//! not depend on the size of the table. One [`commit`](Routing::commit) can make many changes;
//! redundant ones are skipped. [`IrqLine`] decodes `KVM_IRQ_LINE` numbers, and [`kvm_table`]
//! decodes `KVM_SET_GSI_ROUTING` tables.
//!
//! [`msix`] and [`msi`] implement a PCI function's MSI-X table and MSI capability; their vectors
//! don't need GSIs. [`saved_state`] defines their saved form. [`virtio`] assigns vectors to a
//! virtio device's notifications. `device_eventfds` serves devices in the kernel and in other
//! processes. [`LineObservers`] combines several line observers into one. [`TranslateMsi`] connects
//! an IOMMU between devices and the controller.
//!
//! | feature | adds |
//! |---|---|
//! | – | all of the above, in `no_std` with `alloc`; a thread that waits for another one spins |
//! | `std` | a thread that waits for another one sleeps; on Linux also `irqfd` (eventfds that signal GSIs) and `device_eventfds` |
//! | `kvm` | `kvm`: the same routes and eventfds in Linux's KVM, on aarch64 and x86-64 |
//! | `serde` | serialization of saved states |
//! | `rust-vmm` | `kvm::RustVmm`: use of rust-vmm's machines and eventfds with `kvm` |
//!
//! # Example
//!
//! A network device's vector is routed to an ITS, and a UART's interrupt to an SPI:
//!
//! ```
//! use irq_routing::{Change, GsiSpace, Inputs, Pin, Route, Router, Routing};
//! use msi_types::{Delivery, DeviceId, Gsi, Level, Line, MsiMessage, SetLine, SignalMsi};
//! use std::sync::Arc;
//!
//! struct Gic;
//! impl SetLine for Gic {
//!     fn set_line(&self, line: Line, _: Level) -> Delivery {
//!         assert_eq!(line, Line::Spi(33));
//!         Delivery::Pending
//!     }
//!     fn pulse(&self, _: Line) -> Delivery {
//!         Delivery::Pending
//!     }
//! }
//! impl SignalMsi<DeviceId> for Gic {
//!     fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
//!         assert_eq!((from, message.data), (DeviceId::new(8), 2));
//!         Delivery::Pending
//!     }
//! }
//!
//! let inputs = Inputs::new(Arc::new(Gic)).with_its(Arc::new(Gic));
//! let router = Router::new(GsiSpace::default(), inputs)?;
//!
//! let (uart, queue) = (Gsi::new(1), router.allocate()?);
//! let message = MsiMessage { address: 0x0809_0040, data: 2 };
//! router.commit(&[
//!     Change::Set(uart, Route::Pin(Pin::of_spi(33)?)),
//!     Change::Set(queue, Route::to_its(DeviceId::new(8), message)),
//! ])?;
//!
//! assert_eq!(router.signal(queue)?, Delivery::Pending);
//! assert_eq!(router.set_level(uart, Level::High)?, Delivery::Pending);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "kvm"), forbid(unsafe_code))]

#[cfg(not(target_has_atomic = "64"))]
compile_error!("irq-routing needs 64-bit atomics, which this target does not have");

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod config_space;
#[cfg(all(feature = "std", target_os = "linux"))]
pub mod device_eventfds;
mod error;
mod explainer;
mod gsis;
mod inputs;
#[cfg(all(test, shuttle))]
mod interleavings;
mod irq_line;
#[cfg(all(feature = "std", target_os = "linux"))]
pub mod irqfd;
#[cfg(all(
    feature = "kvm",
    target_os = "linux",
    any(target_arch = "aarch64", target_arch = "x86_64")
))]
pub mod kvm;
pub mod kvm_table;
mod line_observers;
mod lock;
pub mod msi;
pub mod msix;
mod route;
mod route_latch;
mod router;
mod routing;
pub mod saved_state;
mod sync;
mod table;
mod translation;
pub mod virtio;

pub use error::{RouteError, SignalError, Unsettled};
pub use inputs::Inputs;
pub use irq_line::{CpuInput, IrqLine, IrqLineError};
pub use line_observers::LineObservers;
pub use msi_types;
pub use route::{NotAPin, Pin, Route, RoutedMessage, Sender};
pub use router::{GsiSpace, Router, TooManyGsis};
pub use routing::{Attachment, Attachments, Change, MessageSink, Routing};
pub use table::ChangeCount;
pub use translation::{Access, Invalidation, TranslateMsi};
