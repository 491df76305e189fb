//! GSI routing for virtual machine monitors, hypervisors and their devices.
//!
//! Interrupts of a virtual machine have numbers in three namespaces that share nothing. This crate
//! keeps them apart by type, and translates from the first to the last:
//!
//! | namespace | whose | here |
//! |---|---|---|
//! | GSI | between the monitor and its interrupt back end | [`Gsi`](msi_types::Gsi): sparse |
//! | INTID | the guest's interrupt controller: SPIs, LPIs | [`Pin`] for SPIs; LPIs are the guest's own affair |
//! | DeviceID and EventID | a device's message, as an ITS sees it | [`RoutedMessage`] |
//!
//! A [`Router`] holds the routes of a model in this process and rings it ([`Inputs`]). Look-ups
//! take no lock and allocate nothing, and a change costs the same in tables of every size. Many
//! changes are one [`commit`](Routing::commit), and those that change nothing are skipped.
//! [`IrqLine`] decodes the numbers of `KVM_IRQ_LINE`, [`kvm_table`] the tables of
//! `KVM_SET_GSI_ROUTING`.
//!
//! [`msix`] and [`msi`] are the MSI-X table and the MSI capability of a PCI function, whose vectors
//! need no GSI. [`saved_state`] has them as plain data. [`SecondaryBus`] keeps their DeviceIDs in
//! line with the bus number that a guest assigns. `device_eventfds` has the eventfds of devices
//! that are not in this process. [`LineObservers`] makes one line observer of several.
//!
//! | feature | adds |
//! |---|---|
//! | – | all of the above, without `std`, with `alloc`; a thread that waits for another one spins |
//! | `std` | a thread that waits for another one sleeps; on Linux `irqfd`: eventfds that ring GSIs, and `device_eventfds` |
//! | `kvm` | `kvm`: the same routes and eventfds in Linux's KVM, on aarch64 and x86-64 |
//! | `serde` | saved states in any of serde's formats |
//! | `rust-vmm` | `kvm::RustVmm`: machines and eventfds of rust-vmm's for `kvm` |
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

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod bus;
#[cfg(all(feature = "std", target_os = "linux"))]
pub mod device_eventfds;
mod error;
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

pub use bus::{MessageSource, SecondaryBus};
pub use error::{RouteError, SignalError};
pub use inputs::Inputs;
pub use irq_line::{CpuInput, IrqLine, IrqLineError};
pub use line_observers::LineObservers;
pub use msi_types;
pub use route::{NotAPin, Pin, Route, RoutedMessage, Sender};
pub use router::{GsiSpace, Router, TooManyGsis};
pub use routing::{Change, MessageSink, Routing};
pub use table::ChangeCount;
