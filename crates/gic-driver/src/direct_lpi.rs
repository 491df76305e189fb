//! Direct LPIs, which are signaled without an ITS. A device writes the INTID to the `GICR_SETLPIR`
//! of the redistributor that should signal the interrupt (IHI 0069 §5.1, "Direct LPIs").
//!
//! The LPIs form a flat namespace, without DeviceIDs, EventIDs or per-device tables and
//! allocations. This module and an ITS share only the tables and the allocator of
//! [`Lpis`](crate::Lpis). The driver requires that all redistributors of a machine have
//! `GICR_SETLPIR` and its related registers. Firmware must state that devices use direct LPIs; the
//! driver can't infer this from the absence of an ITS.
//!
//! - A message's address selects the CPU, and its data is the LPI. An affinity change must
//!   therefore rewrite the endpoint's message address, in two phases.
//!   [`begin_move`](msi_types::MsiParent::begin_move) prepares the new redistributor, which may
//!   have cached an old configuration byte of this LPI. The caller then rewrites the endpoint and
//!   reads it back. [`end_move`](msi_types::MsiParent::end_move) then makes the new CPU the LPI's
//!   target.
//! - An LPI that was pending at the old redistributor is still delivered there. Pending state can't
//!   be read while LPIs are enabled, so masking and unmasking have to invalidate at both
//!   redistributors. If an LPI is moved across many CPUs, the driver clears it at its earlier
//!   targets and resends it at the current one.
//! - Pending LPIs are not lost when a CPU [goes offline](DirectLpi::cpu_off).
//! - Devices are not isolated from each other, and the driver reports this to its callers.
//!
//! # Why an LPI stays pending where it was
//! The driver records earlier targets. An alternative would be to clear the LPI at the old
//! redistributor when a move ends. However, software can't tell whether the LPI is pending there,
//! and an endpoint's Pending Bit Array (PBA) only shows messages that the endpoint has not sent
//! yet. Clearing the LPI would lose messages; clearing and then resending it at the new target
//! would cause a spurious handler run on every move. The table compares both designs on the
//! redistributors used in tests, for a vector that moves across all CPUs round-robin (register
//! accesses per operation; spurious handler runs in 100 moves):
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
//! `RegisterAccess` is not a lock: it prevents accesses to the registers of a sleeping
//! redistributor.

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

use crate::gic::GicWithLpis;
use crate::lpi::LpiMessages;
use crate::{Gic, GicPlatform};
use alloc::sync::Arc;
use core::fmt;
use doorbell_lock::IrqLock;
use gic_arch::Lpi;
use msi_types::{Cpu, MsiError};
use records::{CpuSet, Records};
use redistributors::DirectRedistributors;

/// Direct LPIs on one GIC. Shared in an [`Arc`]; locking is internal. This type is the
/// [`MsiParent`](msi_types::MsiParent) of every bus and platform device that firmware assigns to
/// direct LPIs. A device needs no DeviceID mapping.
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
    /// Claims a GIC's LPIs. CPUs that are online can be targeted immediately, and other CPUs after
    /// [`cpu_on`](Self::cpu_on).
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`DirectLpiError::NotDirect`] names the first redistributor that lacks the registers.
    /// [`LpiError::Claimed`](crate::LpiError::Claimed) means that an ITS or another `DirectLpi`
    /// uses the LPIs of this GIC. In both cases, no redistributor is accessed.
    /// [`DirectLpiError::Fault`] if a redistributor failed; [`DirectLpiError::NoMemory`].
    pub fn new(gic: Arc<Gic<P>>) -> Result<Self, DirectLpiError> {
        let redistributors = DirectRedistributors::new(GicWithLpis::new(gic)?)?;
        let gic = redistributors.gic().clone();
        let lpis = gic.lpis();
        // If the tables were adopted, LPIs may still be pending for a previous kernel at any
        // redistributor.
        let unowned = if lpis.were_adopted() { CpuSet::ALL } else { CpuSet::NONE };
        let records = Records::new(lpis.count(), unowned).ok_or(DirectLpiError::NoMemory)?;
        lpis.claim(LpiMessages::Direct)?;
        let new = Self { redistributors, records, fault: IrqLock::new(None), observer: None };
        for cpu in gic.cpus().filter(|cpu| gic.is_on(*cpu)) {
            // A redistributor with LPIs disabled only prevents its own CPU from being targeted.
            if new.redistributors.takes_lpis(cpu) {
                new.open(cpu).map_err(DirectLpiError::Fault)?;
            }
        }
        Ok(new)
    }

    /// Adds an observer for LPIs that the driver itself resends. Tests use it to compare handler
    /// runs with messages; it is not part of the public interface.
    #[doc(hidden)]
    pub fn with_observer(mut self, observer: Arc<dyn ResendObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Returns a CPU's doorbell (the physical address of its `GICR_SETLPIR`), or `None` if the CPU
    /// has no redistributor.
    pub fn doorbell(&self, cpu: Cpu) -> Option<u64> {
        self.redistributors.doorbell(cpu)
    }

    /// Returns all doorbells, e.g. to map them into an IOMMU domain.
    pub fn doorbells(&self) -> impl Iterator<Item = u64> {
        self.redistributors.doorbells()
    }

    /// Returns the CPU that an LPI targets, or `None` if the LPI is not allocated.
    ///
    /// Context: any.
    pub fn target(&self, lpi: Lpi) -> Option<Cpu> {
        let record = self.records.get(self.platform(), lpi)?;
        (!record.is_freed()).then_some(record.target)
    }

    /// Returns the GIC.
    pub fn gic(&self) -> &Arc<Gic<P>> {
        self.redistributors.gic()
    }

    /// Removes and returns the last error of an operation that can't return an error (masking,
    /// freeing).
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
