//! An interrupt core for kernels and hypervisors: lock-free dispatch, affinity, and per-device MSI
//! domains.
//!
//! It knows no controller. Traits connect it to the rest:
//!
//! - Controllers come in through [`msi_types::MsiParent`] (whatever turns a device's messages into
//!   interrupts: an ITS, a layer over one) and [`msi_types::WiredParent`] (the root controller's
//!   own inputs).
//! - Devices come in through [`msi_types::MessageStore`]; [`pci`] has two.
//! - The kernel comes in through [`Host`].
//!
//! ```text
//!  CPU's trap loop ── dispatch(cpu, hwirq) ──▶ Interrupts ──▶ handler
//!                                                │ owns numbers, cells, counters
//!                    IrqHandle ◀── request ──────┤
//!                                                ├── wired, private interrupts ──▶ WiredParent
//!                                                ├── WiredBridge (from wired inputs to messages)
//!                                                └── MsiDevice (one per device)
//!                                                     ├──▶ MsiParent ──▶ … ──▶ root
//!                                                     └──▶ MessageStore (MSI, MSI-X, others)
//! ```
//!
//! Between a device and its controller there may be [`layer`]s: an IOMMU, a bus with quirks. A
//! device's driver sees none of it.
//!
//! # What holds
//! - **Dispatch takes no lock and allocates nothing**: a table walk, two compare-and-swaps, an
//!   indirect call.
//! - **A handler never runs beside itself**, unless it is private to each CPU. A message may be
//!   acknowledged elsewhere while the handler still runs, as its affinity just changed. It is
//!   neither lost nor run there: it is sent again through the controller and arrives at its current
//!   target. Such *redeliveries* are counted.
//! - **Disabling is eager and loses nothing**: masked at the source at once; what was under way is
//!   sent again at enable.
//! - **Dropping a handle synchronises** with the handler on whichever CPU it runs. Where the caller
//!   [may not wait](TaskContext::may_wait), a handler or any other interrupt of the kernel's own,
//!   drop neither waits nor frees.
//! - **A level may have several handlers** ([`Sharing::Shared`]), which may be added and removed
//!   while CPUs dispatch. Each interrupt runs all of them.
//! - **A screaming interrupt is shut off**: one whose handler [finds nothing to
//!   do](IrqReturn::None), time after time.
//! - **A message that comes before its handler waits for it**. It waits at the endpoint if that can
//!   be masked at any time. Else it is acknowledged and sent again at the request. Controllers are
//!   not asked to mask new vectors.
//! - **Whatever fails half-way is rolled back**: allocations, set-up, affinity changes.
//!
//! # Contexts
//! Each operation states its [context](msi_types#contexts). A kernel reports by
//! [`may_wait`](TaskContext::may_wait) whether the caller is in a task that may sleep.
//!
//! # Example
//!
//! A kernel, a controller and a device, each reduced to the least; the device's vector fires twice:
//!
//! ```
//! # use core::{fmt, num::NonZeroU16};
//! # use msi_types::*;
//! # struct Kernel;
//! # impl LocalCpu for Kernel {
//! #     fn irq_save(&self) -> IrqState { IrqState::new(0) }
//! #     fn irq_restore(&self, _: IrqState) {}
//! #     fn yield_now(&self) {
//! #         self.relax();
//! #     }
//! # }
//! # impl irq_domain::Host for Kernel {
//! #     fn current_cpu(&self) -> Option<Cpu> { None }
//! # }
//! # impl TaskContext for Kernel {
//! #     fn may_wait(&self) -> bool { true }
//! # }
//! # struct Controller;
//! # impl MsiParent for Controller {
//! #     fn isolation(&self, _: RequesterId) -> Isolation {
//! #         Isolation::NotIsolated(NotIsolated::NoController)
//! #     }
//! #     fn attach(&self, _: RequesterId, _: u32) -> Result<Attachment, MsiError> {
//! #         Ok(Attachment::new(0))
//! #     }
//! #     fn detach(&self, _: Attachment) {}
//! #     fn allocate(&self, _: &Attachment, r: &BlockRequest) -> Result<HwIrqBlock, MsiError> {
//! #         Ok(HwIrqBlock::new(HwIrq::new(8192), r.count))
//! #     }
//! #     fn free(&self, _: &Attachment, _: HwIrqBlock) {}
//! #     fn compose(&self, _: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
//! #         Ok(MsiMessage { address: 0x0809_0040, data: index.into() })
//! #     }
//! #     fn begin_move(&self, b: &HwIrqBlock, i: u16, to: Cpu) -> Result<Move, MsiError> {
//! #         let (first, count) = (b.hwirq(i).unwrap(), NonZeroU16::MIN);
//! #         Ok(Move { first, count, message: None, from: to, to })
//! #     }
//! #     fn end_move(&self, _: Move, _: MoveOutcome) -> Result<(), MsiError> { Ok(()) }
//! #     fn mask(&self, _: HwIrq) {}
//! #     fn unmask(&self, _: HwIrq) {}
//! #     fn set_pending(&self, _: HwIrq, _: Pending) {}
//! #     fn describe(&self, v: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
//! #         writeln!(out, "its: LPI {v}")
//! #     }
//! # }
//! # struct Store;
//! # struct Open;
//! # impl StoreUpdate for Open {
//! #     fn write(&mut self, _: u16, _: MsiMessage) {}
//! #     fn mask(&mut self, _: u16) {}
//! #     fn unmask(&mut self, _: u16) {}
//! # }
//! # impl MessageStore for Store {
//! #     fn slots(&self) -> u16 { 4 }
//! #     fn fit(&self) -> Fit { Fit::new(Rewrite::Never) }
//! #     fn masking(&self) -> Masking { Masking::None }
//! #     fn update(&self, f: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
//! #         f(&mut Open);
//! #         Ok(())
//! #     }
//! #     fn set_enabled(&self, _: bool) -> Result<(), StoreError> { Ok(()) }
//! # }
//! use irq_domain::{Config, Dispatched, Interrupts, MsiDevice, MsiDeviceConfig};
//! use std::sync::Arc;
//!
//! let interrupts = Interrupts::new(Config::new(NonZeroU16::MIN, Arc::new(Kernel)))?;
//! let requester = RequesterId::pci(1, 0, 0);
//! let config = MsiDeviceConfig::new("nvme0", requester, Arc::new(Controller), Arc::new(Store));
//! let device = MsiDevice::attach(&interrupts, config)?;
//! let granted = device.allocate(Shape::Independent, 1..=4)?;
//! let handle = device.request(granted[0].slot, "nvme0-admin", |context| {
//!     assert_eq!(context.cpu(), Cpu::new(0));
//! })?;
//!
//! // The trap loop of CPU 0, with what it read from the controller:
//! for _ in 0..2 {
//!     assert_eq!(interrupts.dispatch(Cpu::new(0), handle.hwirq()), Dispatched::Handled);
//! }
//! assert_eq!(handle.count(), 2);
//!
//! let mut hierarchy = String::new();
//! interrupts.describe(handle.irq(), &mut hierarchy)?;
//! let first = "irq 0: nvme0-admin, edge, cpu 0, enabled, 2 runs, 0 redelivered\n";
//! assert!(hierarchy.starts_with(first));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod affinity;
mod domain;
mod error;
mod host;
#[cfg(all(test, shuttle))]
mod interleavings;
mod interrupts;
mod irq;
pub mod layer;
mod name;
mod number;
pub mod pci;
mod request;
mod runtime;
mod sync;

pub use affinity::policy::{AffinityPolicy, Moved, RoundRobin, spread};
pub use domain::bridge::{InputBridge, WiredBridge};
pub use domain::msi_device::{MsiDevice, MsiDeviceConfig};
pub use domain::shared_device::{SharedDevice, SharedDeviceConfig};
pub use domain::vector_table::MsiVector;
pub use error::{MoveError, MsiDeviceError, RequestError, Stranded, UnknownCpu};
pub use host::Host;
pub use interrupts::{Config, Interrupts};
pub use irq::dispatch::{Deferral, Dispatched, Unhandled};
pub use irq::flow::{Flow, Start};
pub use irq::handler::{IrqContext, IrqReturn};
pub use irq::info::{EffectiveAffinity, IrqInfo};
pub use msi_types;
#[doc(no_inline)]
pub use msi_types::{IrqState, LocalCpu, TaskContext};
pub use name::Name;
pub use number::Irq;
pub use request::handle::{IrqHandle, Sharing, WiredRequest};
pub use request::per_cpu::PerCpuHandle;
