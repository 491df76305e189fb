//! Events that become pending again, after their redistributor lost its pending LPIs.

use super::Its;
use super::error::ItsError;
use super::routes::EventRoutes;
use crate::platform::GicPlatform;
use core::ops::Range;
use gic_arch::Lpi;
use gic_arch::its::{CollectionId, Command};
use msi_types::Cpu;

/// Number of LPIs that one pass of the command queue examines. This bounds the time for which a
/// pass holds the queue's lock, and its commands fit the smallest queue.
const LPIS_PER_PASS: u32 = 64;

impl<P: GicPlatform> Its<P> {
    /// Makes every event that is mapped to `cpu` pending again, and returns their number. Callers
    /// must do so after [`cpu_on`](Self::cpu_on) or [`resume`](Self::resume) if the redistributor
    /// [lost](crate::lpi::PendingLpis::Lost) its pending LPIs, because a message that was pending
    /// there is recorded nowhere else. The handler of a device that sent nothing runs once to no
    /// effect; an event that is masked stays pending until it is unmasked. The CPU must not go
    /// offline concurrently, and its events must not move.
    ///
    /// No lock is held during the whole walk: each pass of the command queue covers a bounded
    /// number of LPIs.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`] if the CPU is off at this ITS. [`ItsError::Fault`] is the first
    /// failure; the walk continues after it. The call can be repeated.
    pub fn resend(&self, cpu: Cpu) -> Result<u32, ItsError> {
        let (collection, target) = self.collections.of_cpu(cpu)?;
        let (mut resent, mut result) = (0, Ok(()));
        for pass in passes(&self.routes) {
            let events = pass.filter_map(|index| self.int(collection, index));
            // Most passes have no events, and need no lock.
            if events.clone().next().is_none() {
                continue;
            }
            let counted = events.inspect(|_| resent += 1);
            result = result.and(self.run(&mut counted.chain([Command::Sync { target }])));
        }
        result.map(|()| resent)
    }

    /// Returns the INT command for the event of an LPI, if it is mapped to this collection.
    fn int(&self, collection: CollectionId, index: u32) -> Option<Command> {
        let route = self.routes.of(Lpi::from_index(index)?)?;
        let here = route.collection == collection;
        here.then(|| Command::Int { device: route.device, event: route.event_id() })
    }
}

/// Returns the LPIs that may be mapped, divided into passes.
fn passes(routes: &EventRoutes) -> impl Iterator<Item = Range<u32>> {
    routes.provided().flat_map(|lpis| {
        let (start, end) = (lpis.start, lpis.end);
        let of = move |first: u32| first..first.saturating_add(LPIS_PER_PASS).min(end);
        (start..end).step_by(LPIS_PER_PASS as usize).map(of)
    })
}
