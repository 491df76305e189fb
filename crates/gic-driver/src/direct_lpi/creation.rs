//! Claims a GIC's LPIs.

use super::records::{CpuSet, Records};
use super::redistributors::DirectRedistributors;
use super::{DirectLpi, DirectLpiError, ResendObserver};
use crate::gic::GicWithLpis;
use crate::lpi::LpiMessages;
use crate::{Gic, GicPlatform};
use alloc::sync::Arc;
use doorbell_lock::IrqLock;

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
}
