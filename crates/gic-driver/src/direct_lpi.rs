//! LPIs without an ITS. A device writes the INTID to the `GICR_SETLPIR` of the redistributor that
//! should signal the interrupt (IHI 0069 §5.1, "Direct LPIs").
//!
//! The LPIs form a flat namespace, without DeviceIDs, EventIDs or per-device tables and
//! allocations. This module and an ITS share only the tables and the allocator of
//! [`Lpis`](crate::Lpis). The driver requires that all redistributors of a machine have these
//! registers. Firmware must state that devices use them; the absence of an ITS does not imply it.
//!
//! - The address of a message selects the CPU, and the data is the LPI. A change of affinity
//!   therefore rewrites the endpoint's message address, in two phases.
//!   [`begin_move`](msi_types::MsiParent::begin_move) prepares the new redistributor, which may
//!   have cached an old configuration byte of this LPI. The caller then rewrites the endpoint and
//!   reads it back. [`end_move`](msi_types::MsiParent::end_move) makes the new CPU the LPI's
//!   target.
//! - An LPI that was pending at the old redistributor is delivered there. Software cannot read the
//!   pending state while LPIs are enabled, so masking and unmasking invalidate at both
//!   redistributors. If an LPI is moved across many CPUs, the driver clears it at its earlier
//!   targets and makes it pending at its current one.
//! - Pending LPIs are not lost when a CPU [goes offline](DirectLpi::cpu_off).
//! - The driver does not isolate devices from each other, and reports this.
//!
//! # Why an LPI stays pending where it was
//! The driver could clear an LPI at the old redistributor when a move ends, and would then not need
//! a record of earlier targets. But software cannot read whether the LPI is pending there, and an
//! endpoint's PBA shows only messages that the endpoint has not sent. Clearing alone would lose
//! messages; clearing and then making the LPI pending at its new target would run a handler without
//! a message at every move. The table compares both designs on the tests' redistributors, for a
//! vector that visits all CPUs in turn (register accesses per operation; handler runs without a
//! message in 100 moves):
//!
//! | CPUs | move | mask | free | runs | | move | mask | free | runs |
//! |---|---|---|---|---|---|---|---|---|---|
//! | | this driver | | | | | with clearing | | | |
//! | 1 | – | 4 | 9 | 0 | | – | 4 | 9 | 0 |
//! | 2 | 4 | 8 | 18 | 0 | | 6 | 4 | 9 | 100 |
//! | 4 | 4 | 16 | 36 | 0 | | 6 | 4 | 9 | 100 |
//! | 8, 64 | 5 | 12 | 18 | 33 | | 6 | 4 | 9 | 100 |
//!
//! ```text
//! lock order, outermost first; each masks interrupts, none is held while waiting for hardware
//!   record of an LPI
//!     LPI configuration bytes (of `Lpis`)
//!   invalidations of a redistributor
//! ```
//! `RegisterAccess` is not a lock. It denies access to the registers of a sleeping redistributor.

// First, so that the documentation of `DirectLpi` begins with its constructor.
mod creation;

mod blocks;
mod error;
mod hotplug;
mod moves;
mod msi_parent;
mod records;
mod redistributors;
mod resend;
mod signalling;

pub use error::DirectLpiError;
pub use hotplug::{CpuOff, CpuOn};
#[doc(hidden)]
pub use resend::{Resend, ResendObserver, ResendReason};

use crate::{Gic, GicPlatform};
use alloc::sync::Arc;
use core::fmt;
use doorbell_lock::IrqLock;
use msi_types::{Cpu, MsiError};
use records::Records;
use redistributors::DirectRedistributors;

/// Direct LPIs of one GIC. Users share it in an [`Arc`]; locking is internal. It is the
/// [`MsiParent`](msi_types::MsiParent) of every bus and platform device that firmware assigns to
/// direct LPIs. Devices need no mapping.
///
/// ```
/// extern crate alloc;
/// use alloc::sync::Arc;
/// use gic_driver::direct_lpi::{DirectLpi, DirectLpiError};
/// use gic_driver::{Gic, GicPlatform};
/// use msi_types::{BlockRequest, MsiError, MsiMessage, MsiParent, RequesterId};
///
/// /// Call this after `Gic::cpu_on` has turned on each CPU and returned `Some`.
/// fn bring_up<P: GicPlatform>(gic: Arc<Gic<P>>) -> Result<DirectLpi<P>, DirectLpiError> {
///     DirectLpi::new(gic)
/// }
///
/// fn first_message(
///     parent: &dyn MsiParent,
///     wanted: &BlockRequest,
/// ) -> Result<MsiMessage, MsiError> {
///     let device = parent.attach(RequesterId::pci(1, 0, 0), wanted.count.get().into())?;
///     let block = parent.allocate(&device, wanted)?;
///     // The address of GICR_SETLPIR of the requested CPU, and the INTID as data.
///     parent.compose(&block, 0)
/// }
/// ```
pub struct DirectLpi<P: GicPlatform> {
    redistributors: DirectRedistributors<P>,
    records: Records,
    fault: IrqLock<Option<MsiError>>,
    observer: Option<Arc<dyn ResendObserver>>,
}

impl<P: GicPlatform> DirectLpi<P> {
    /// Returns the doorbell of a CPU, which is the physical address of its `GICR_SETLPIR`, or
    /// `None` if the CPU has no redistributor.
    pub fn doorbell(&self, cpu: Cpu) -> Option<u64> {
        self.redistributors.doorbell(cpu)
    }

    /// Returns all doorbells, for example to map them into an IOMMU domain.
    pub fn doorbells(&self) -> impl Iterator<Item = u64> {
        self.redistributors.doorbells()
    }

    /// Returns the GIC.
    pub fn gic(&self) -> &Arc<Gic<P>> {
        self.redistributors.gic()
    }

    /// Takes the last error of an operation that cannot return one (masking, freeing).
    pub fn take_fault(&self) -> Option<MsiError> {
        self.fault.with(self.platform(), Option::take)
    }

    fn platform(&self) -> &P {
        self.redistributors.platform()
    }

    fn note(&self, error: MsiError) {
        self.fault.with(self.platform(), |fault| *fault = Some(error));
    }
}

impl<P: GicPlatform> Drop for DirectLpi<P> {
    fn drop(&mut self) {
        self.redistributors.gic().lpis().unclaim();
    }
}

impl<P: GicPlatform> fmt::Debug for DirectLpi<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectLpi").field("gic", self.redistributors.gic()).finish_non_exhaustive()
    }
}
