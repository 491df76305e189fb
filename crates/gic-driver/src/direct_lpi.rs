//! LPIs without an ITS: a device writes the INTID to the `GICR_SETLPIR` of the redistributor that
//! is to signal it (IHI 0069 §5.1, "Direct LPIs").
//!
//! One flat namespace of LPIs: no DeviceID, no EventID, no table and no allocation per device. It
//! shares with an ITS only the tables and the allocator of [`Lpis`](crate::Lpis). Of a machine's
//! redistributors either all have these registers or none. Firmware, not the absence of an ITS,
//! says that devices use them.
//!
//! - The message names the CPU (its address) and the LPI (its data). Changing an affinity rewrites
//!   the endpoint's address, in two phases. [`begin_move`](msi_types::MsiParent::begin_move)
//!   prepares the new redistributor, which may have cached an old configuration byte of this LPI.
//!   The endpoint is rewritten and read back. [`end_move`](msi_types::MsiParent::end_move) makes
//!   the new place the LPI's own.
//! - What was pending at the old redistributor is delivered there. Whether something is pending
//!   cannot be read while LPIs are enabled, so masking and unmasking invalidate at both. An LPI
//!   that wanders over many CPUs is cleared at those that it left, and sent again at its target.
//! - A CPU that [goes off line](DirectLpi::cpu_off) takes no LPI with it.
//! - It isolates nothing, and says so.
//!
//! # Why an LPI stays pending where it was
//! An LPI could be cleared at the old redistributor when a move ends, so that no record of earlier
//! targets were needed. Software cannot read whether the LPI is pending there, and an endpoint's
//! PBA shows only the messages that the endpoint held back. Clearing alone loses messages.
//! Clearing and making the LPI pending at its new target runs a handler without a message at every
//! move. Measured on the tests' redistributors for a vector that visits all CPUs in turn (register
//! accesses per operation; runs without a message in 100 moves):
//!
//! | CPUs | move | mask | free | runs | | move | mask | free | runs |
//! |---|---|---|---|---|---|---|---|---|---|
//! | | as it is | | | | | cleared | | | |
//! | 1 | – | 4 | 9 | 0 | | – | 4 | 9 | 0 |
//! | 2 | 4 | 8 | 18 | 0 | | 6 | 4 | 9 | 100 |
//! | 4 | 4 | 16 | 36 | 0 | | 6 | 4 | 9 | 100 |
//! | 8, 64 | 5 | 12 | 18 | 33 | | 6 | 4 | 9 | 100 |
//!
//! ```text
//! order of locks, outermost first; each masks interrupts, none is held during a wait for hardware
//!   record of an LPI
//!     LPI configuration bytes (of `Lpis`)
//!   invalidations of a redistributor
//! ```
//! `RegisterAccess` is no lock: it refuses the registers of a redistributor that sleeps.

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
use msi_types::{Cpu, MsiError};
use records::{CpuSet, Records};
use redistributors::DirectRedistributors;

/// Direct LPIs of one GIC. Share it in an [`Arc`]; locks are inside. It is the
/// [`MsiParent`](msi_types::MsiParent) of every bus and platform device that firmware sends here:
/// there is nothing to map.
///
/// ```
/// extern crate alloc;
/// use alloc::sync::Arc;
/// use gic_driver::direct_lpi::{DirectLpi, DirectLpiError};
/// use gic_driver::{Gic, GicPlatform};
/// use msi_types::{BlockRequest, MsiError, MsiMessage, MsiParent, RequesterId};
///
/// /// After each CPU was turned on by `Gic::cpu_on`, which answered `attached`.
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
///     // GICR_SETLPIR of the CPU asked for, and the INTID.
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
    /// Claims the LPIs of a GIC. CPUs that are on can be used immediately; others after
    /// [`cpu_on`](Self::cpu_on).
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`DirectLpiError::NotDirect`] names the first redistributor that lacks the registers, and
    /// [`LpiError::Claimed`](crate::LpiError::Claimed) an ITS or another `DirectLpi` of this GIC:
    /// no redistributor is touched then. [`DirectLpiError::Fault`], [`DirectLpiError::NoMemory`].
    pub fn new(gic: Arc<Gic<P>>) -> Result<Self, DirectLpiError> {
        let redistributors = DirectRedistributors::new(GicWithLpis::new(gic)?)?;
        let gic = redistributors.gic().clone();
        let lpis = gic.lpis();
        // Redistributors go on with what they had pending for a previous kernel.
        let unowned = if lpis.were_adopted() { CpuSet::ALL } else { CpuSet::NONE };
        let records = Records::new(lpis.count(), unowned).ok_or(DirectLpiError::NoMemory)?;
        lpis.claim(LpiMessages::Direct)?;
        let new = Self { redistributors, records, fault: IrqLock::new(None), observer: None };
        for cpu in gic.cpus().filter(|cpu| gic.is_on(*cpu)) {
            // LPIs may be refused at one redistributor: its CPU cannot be used, the others can.
            if new.redistributors.takes_lpis(cpu) {
                new.open(cpu).map_err(DirectLpiError::Fault)?;
            }
        }
        Ok(new)
    }

    /// Adds an observer of each LPI that the driver itself makes pending. Tests use it to compare
    /// handler runs with messages; it is no part of the public interface.
    #[doc(hidden)]
    pub fn with_observer(mut self, observer: Arc<dyn ResendObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The doorbell of a CPU: the physical address of its `GICR_SETLPIR`. `None` for a CPU without
    /// redistributor.
    pub fn doorbell(&self, cpu: Cpu) -> Option<u64> {
        self.redistributors.doorbell(cpu)
    }

    /// All doorbells, to be mapped into an IOMMU's domain.
    pub fn doorbells(&self) -> impl Iterator<Item = u64> {
        self.redistributors.doorbells()
    }

    /// The GIC.
    pub fn gic(&self) -> &Arc<Gic<P>> {
        self.redistributors.gic()
    }

    /// The last failure of an operation that has no way to report one (masking, freeing). Taken
    /// out.
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
