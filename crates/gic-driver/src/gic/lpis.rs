//! A GIC known to have usable LPIs, for drivers that send LPIs.

use super::Gic;
use crate::lpi::{LpiError, Lpis};
use crate::platform::GicPlatform;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;

/// A shared reference to a GIC that has LPIs.
pub(crate) struct GicWithLpis<P: GicPlatform>(Arc<Gic<P>>);

impl<P: GicPlatform> GicWithLpis<P> {
    /// Wraps a GIC after checking that it has usable LPIs.
    ///
    /// # Errors
    /// Returns the reason why the GIC has no LPIs.
    pub(crate) fn new(gic: Arc<Gic<P>>) -> Result<Self, LpiError> {
        gic.lpis()?;
        Ok(Self(gic))
    }

    pub(crate) fn lpis(&self) -> &Lpis<P> {
        let Ok(lpis) = &self.0.lpis else {
            unreachable!("`new` checked that the GIC has LPIs, and they do not change")
        };
        lpis
    }
}

impl<P: GicPlatform> Clone for GicWithLpis<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: GicPlatform> fmt::Debug for GicWithLpis<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GIC of the distributor@{:x}", self.0.distributor.address())
    }
}

impl<P: GicPlatform> Deref for GicWithLpis<P> {
    type Target = Arc<Gic<P>>;

    fn deref(&self) -> &Arc<Gic<P>> {
        &self.0
    }
}
