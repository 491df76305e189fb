//! An interrupt core for kernels and hypervisors: lock-free dispatch, affinity, and per-device MSI
//! domains.
//!
//! The crate is independent of any controller. Traits connect it to the rest of the kernel:
//!
//! - Controllers implement [`msi_types::MsiParent`] (an ITS or a layer over one: anything that
//!   turns a device's messages into interrupts) and [`msi_types::WiredParent`] (the root
//!   controller's wired inputs).
//! - Devices implement [`msi_types::MessageStore`]; [`pci`] provides the stores for MSI and MSI-X.
//! - The kernel implements [`Host`].
//!
//! ```text
//!  CPU's trap loop ── dispatch(cpu, hwirq) ──▶ Interrupts ──▶ handler
//!                                                │ owns numbers, cells, counters
//!                    IrqHandle ◀── request ──────┤
//!                                                ├── wired, private interrupts ──▶ WiredParent
//!                                                └── MsiDevice (one per device)
//!                                                     ├──▶ MsiParent ──▶ … ──▶ root
//!                                                     └──▶ MessageStore (MSI, MSI-X, others)
//! ```
//!
//! [`layer`]s such as an IOMMU or a bus with quirks can sit between a device and its controller.
//! The device's driver doesn't see them.
//!
//! # Guarantees
//! - **Dispatch acquires no lock and allocates nothing**: it costs a table walk, two
//!   compare-and-swaps and an indirect call.
//! - **A handler never runs concurrently with itself**, unless its interrupt is private to each
//!   CPU. Right after an affinity change, another CPU may acknowledge a message while the handler
//!   is still running. The message isn't lost: it is sent again through the controller, and arrives
//!   at the current target. The core counts these *redeliveries*.
//! - **Disabling is eager and loses no interrupt**: the interrupt is masked at its source
//!   immediately. An interrupt that was already in flight is sent again when it is enabled.
//! - **Dropping a handle synchronizes** with the handler, regardless of the CPU on which it runs.
//!   If the caller [may not wait](TaskContext::may_wait), e.g. in a handler, the drop neither waits
//!   nor frees, and a later task operation frees the handler.
//! - **A level-triggered input may have several handlers** ([`Sharing::Shared`]). Handlers can be
//!   added and removed while CPUs dispatch, and each interrupt runs all of the line's handlers.
//! - **Spurious interrupts are disabled**: if a handler [finds nothing to do](IrqReturn::None) in
//!   nearly every run, the core disables its interrupt.
//! - **A message that arrives before its handler is requested is not lost**. If the endpoint can be
//!   masked at any time, it holds the message back. Otherwise, the core acknowledges the message
//!   and sends it again when a handler is requested. Controllers therefore need not mask new
//!   vectors.
//! - **Failures are rolled back**: if an allocation, a setup or an affinity change fails halfway,
//!   all completed steps are undone.
//!
//! # Contexts
//! Each operation states its [context](msi_types#contexts). Through
//! [`may_wait`](TaskContext::may_wait), the kernel tells the core whether the caller is in a task
//! that may sleep.
//!
//! # Example
//!
//! A minimal kernel, controller and device. The device's vector fires twice:
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
//! // The trap loop of CPU 0, with the interrupt that the controller acknowledged:
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

#[cfg(not(target_has_atomic = "64"))]
compile_error!("irq-domain needs 64-bit atomics, which this target does not have");

extern crate alloc;
#[cfg(test)]
extern crate std;

mod affinity;
mod domain;
mod error;
#[cfg(all(test, shuttle))]
mod interleavings;
mod interrupts;
mod irq;
pub mod layer;
mod name;
pub mod pci;
mod request;
mod runtime;
mod sync;

pub use affinity::{AffinityPolicy, Moved, PlacedVector, Placement, RoundRobin, spread};
pub use domain::endpoint::MessageCopy;
pub use domain::msi_device::{MsiDevice, MsiDeviceConfig, SharedDevice};
pub use domain::vector_table::MsiVector;
pub use error::{MoveError, MsiDeviceError, RequestError, Stranded, UnknownCpu};
pub use interrupts::{Config, Interrupts};
pub use irq::handler::{Deferral, Dispatched, Flow, IrqContext, IrqReturn, Start, Unhandled};
pub use irq::info::{EffectiveAffinity, IrqInfo};
pub use msi_types;
#[doc(no_inline)]
pub use msi_types::{IrqState, LocalCpu, TaskContext};
pub use name::{Irq, Name};
pub use request::handle::{IrqHandle, PerCpuHandle, Sharing, WiredRequest};
pub use runtime::Host;
