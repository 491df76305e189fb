//! Drivers for the Arm GICv3, for any kernel or hypervisor: distributor, redistributors, CPU
//! interface, LPIs, and every way for a device to send messages to a GIC. The crate also contains a
//! GICv2 driver, for boards whose devices use GICv2m.
//!
//! The kernel implements [`Platform`] (mappings, an interrupt mask and a clock) and can then use
//! typed drivers, which don't depend on a particular interrupt core. [`Distributor`],
//! [`Redistributor`] and [`CpuInterface`], or [`GicV2`], serve wired interrupts, timers and IPIs.
//! These drivers need no heap: with the default feature `alloc` disabled, the crate links without a
//! global allocator. [`Gic`] combines them, addresses CPUs by number, and adds [`Lpis`], for which
//! the platform must be a [`GicPlatform`] and provide table memory. The MSI parents use a [`Gic`].
//! Each implements [`MsiParent`](msi_types::MsiParent), and firmware describes which of them serves
//! a device:
//!
//! | | a message is | built on | isolates |
//! |---|---|---|---|
//! | [`Its`] | an EventID to the ITS | [`Lpis`] | per DeviceID |
//! | [`DirectLpi`] | an LPI to a redistributor | [`Lpis`] | no |
//! | [`Mbi`] | an SPI to the distributor or its alias | [`WiredParent`](msi_types::WiredParent) | no |
//! | [`V2m`] | an SPI to a frame, over a [`Gic`] or a [`GicV2`] | [`WiredParent`](msi_types::WiredParent) | no |
//!
//! Both security views are supported; the driver detects which one applies ([`SecurityView`]).
//! Every wait for hardware is bounded by the platform's clock, and a timeout error names the state
//! that the driver was waiting for. `unsafe` code is confined to [`RawMmio`] and `sysreg` (the
//! CPU's system registers, on AArch64).
//!
//! # Examples
//!
//! A single-CPU kernel without a heap enables its timer interrupt:
//!
//! ```
//! use gic_arch::{Affinity, IntId, Priority};
//! use gic_driver::{CpuInterface, CpuInterfaceConfig, Distributor, DistributorConfig, GicError};
//! use gic_driver::{GicCpuInterface, PhysicalRegion, Platform, PrivateConfig};
//! use gic_driver::{RedistributorRegion, SystemRegisters, find_redistributor};
//!
//! fn start_timer<P: Platform>(
//!     platform: &P,
//!     distributor: u64, // physical addresses, from firmware
//!     redistributors: PhysicalRegion,
//!     cpu: Affinity, // MPIDR_EL1
//!     registers: &impl SystemRegisters,
//!     timer: IntId,
//! ) -> Result<(), GicError> {
//!     let priority = Priority::new(0xa0);
//!     let distributor = Distributor::map(platform, distributor)?;
//!     distributor.init(platform, DistributorConfig::new(priority, cpu))?;
//!     let region = RedistributorRegion::new(redistributors);
//!     let redistributor = find_redistributor(platform, &[region], cpu)?;
//!     redistributor.wake(platform)?;
//!     redistributor.init(platform, PrivateConfig::new(priority, distributor.view()))?;
//!     <CpuInterface<_>>::enable(registers, CpuInterfaceConfig::default())?;
//!     redistributor.interrupt(timer)?.enable();
//!     Ok(())
//! }
//!
//! fn on_interrupt(registers: &impl SystemRegisters, handle: impl FnMut(IntId)) {
//!     <CpuInterface<_>>::new(registers).handle_pending(handle);
//! }
//! ```
//!
//! A kernel with a heap initializes the GIC on its boot CPU, claims an SPI for a device driver, and
//! handles one interrupt:
//!
//! ```
//! extern crate alloc;
//! use alloc::sync::Arc;
//! use core::num::NonZeroU16;
//! use gic_arch::SgiId;
//! use gic_driver::{Gic, GicConfig, GicError, GicPlatform, SystemRegisters};
//! use msi_types::{Cpu, MsiError, Trigger, HwIrq, WiredParent};
//!
//! fn boot<P: GicPlatform>(
//!     platform: Arc<P>,
//!     config: GicConfig, // from firmware
//!     registers: &impl SystemRegisters, // this CPU's: `sysreg::CpuRegisters` on hardware
//! ) -> Result<Gic<P>, GicError> {
//!     let boot_cpu = platform.cpu();
//!     let gic = Gic::new(platform, config)?;
//!     gic.cpu_on(boot_cpu, registers)?;
//!     // The other CPUs call `cpu_on` when they start. From then on IPIs reach them.
//!     gic.cpu_interface(registers).send_to_others(SgiId::new(1).expect("below 16"));
//!     Ok(gic)
//! }
//!
//! fn give_spi_42_to_a_driver(gic: &dyn WiredParent) -> Result<(), MsiError> {
//!     let spi = HwIrq::new(42);
//!     gic.claim(spi, NonZeroU16::MIN)?;
//!     gic.set_trigger(spi, Trigger::Edge)?;
//!     gic.set_target(spi, Cpu::new(0))?;
//!     gic.unmask(spi);
//!     Ok(())
//! }
//!
//! fn on_interrupt<P: GicPlatform>(gic: &Gic<P>, registers: &impl SystemRegisters) {
//!     let interface = gic.cpu_interface(registers);
//!     if let Some(interrupt) = interface.acknowledge() {
//!         // … the handler of `interrupt.intid()` …
//!         gic.end(&interface, interrupt);
//!     }
//! }
//! ```
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(feature = "alloc"),
    expect(dead_code, unused_imports, reason = "parts of the modules serve only `Gic` and LPIs")
)]

#[cfg(all(feature = "alloc", not(target_has_atomic = "64")))]
compile_error!("gic-driver with `alloc` needs 64-bit atomics, which this target does not have");

#[cfg(any(feature = "alloc", test))]
extern crate alloc;
#[cfg(all(test, shuttle))]
extern crate std;

mod barrier;
#[cfg(feature = "alloc")]
mod block_allocator;
#[cfg(feature = "alloc")]
pub mod bridge_msi;
mod claims;
pub mod cpu_interface;
#[cfg(feature = "alloc")]
pub mod direct_lpi;
pub mod distributor;
pub mod errata;
mod error;
mod frame;
#[cfg(feature = "alloc")]
pub mod gic;
pub mod gicv2;
#[cfg(all(test, shuttle))]
mod interleavings;
mod interrupt;
#[cfg(feature = "alloc")]
pub mod its;
#[cfg(feature = "alloc")]
pub mod lpi;
#[cfg(any(target_arch = "aarch64", test))]
mod mask_hint;
#[cfg(feature = "alloc")]
pub mod mbi;
mod mmio;
mod platform;
mod priorities;
pub mod redistributor;
#[cfg(feature = "alloc")]
mod register_access;
mod security;
#[cfg(feature = "alloc")]
pub mod spi_messages;
#[cfg(feature = "alloc")]
mod sync;
#[cfg(target_arch = "aarch64")]
pub mod sysreg;
mod system_registers;
#[cfg(feature = "alloc")]
pub mod v2m;

#[cfg(feature = "alloc")]
pub use block_allocator::{Alignment, BlockError};
#[cfg(feature = "alloc")]
pub use bridge_msi::{BridgeKind, BridgeMsi, BridgeMsiConfig, BridgeMsiError};
pub use cpu_interface::{CpuInterface, CpuInterfaceConfig, GicCpuInterface};
#[cfg(feature = "alloc")]
pub use direct_lpi::{DirectLpi, DirectLpiError};
pub use distributor::{Distributor, DistributorConfig, Route};
pub use error::{Block, GicError};
pub use frame::{PrivateState, SharedBlock};
#[cfg(feature = "alloc")]
pub use gic::{Gic, GicConfig};
pub use gic_arch;
pub use gicv2::{GicV2, GicV2Config};
pub use interrupt::Interrupt;
#[cfg(feature = "alloc")]
pub use its::{Its, ItsConfig, ItsError, ItsMsiParent};
#[cfg(feature = "alloc")]
pub use lpi::{LpiError, LpiRange, Lpis};
#[cfg(feature = "alloc")]
pub use mbi::{Mbi, MbiConfig};
pub use mmio::{Mmio, MmioExt, RawMmio, Width};
pub use msi_types;
#[doc(no_inline)]
pub use msi_types::{IrqState, LocalCpu};
pub use platform::{
    Coherence, GicPlatform, Observed, PhysicalRegion, Platform, Table, TableLayout, TimedOut, Wait,
    wait_until,
};
pub use priorities::Priorities;
pub use redistributor::{
    PrivateConfig, Redistributor, RedistributorRegion, TableAccess, find_redistributor,
};
pub use security::{Group, SecurityView};
#[cfg(feature = "alloc")]
pub use spi_messages::{Mip, MipConfig, MipDoorbell};
#[cfg(feature = "alloc")]
pub use spi_messages::{SpiError, SpiRange};
pub use system_registers::{ExceptionLevel, SystemRegisters};
#[cfg(feature = "alloc")]
pub use v2m::{V2m, V2mFrame};
