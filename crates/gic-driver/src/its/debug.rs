//! `Debug` output of an ITS, which fits on a screen.

use super::Its;
use super::routes::{EventRoutes, cpu_of};
use crate::mmio::MmioExt;
use crate::platform::GicPlatform;
use core::fmt;
use gic_arch::gits;

/// Maximum number of events that are listed.
const LISTED: usize = 8;

/// Formats a summary. Reads `GITS_CTLR`, and takes the command queue's lock.
impl<P: GicPlatform> fmt::Debug for Its<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let enabled = self.frame.registers.read(gits::CTLR).enabled();
        let (executed, posted) = self.queue.progress(&self.frame);
        let (on, cpus) = (self.collections.mapped().count(), self.collections.count());
        let (free, lpis) = (self.lpis().available(), self.lpis().count());
        let (faults, last_fault) = self.faults();
        f.debug_struct("Its")
            .field("base", &format_args!("{:#x}", self.base()))
            .field("doorbell", &format_args!("{:#x}", self.doorbell()))
            .field("enabled", &enabled)
            .field("commands", &format_args!("{executed} of {posted} executed"))
            .field("collections", &format_args!("{on} of {cpus} mapped"))
            .field("lpis", &format_args!("{free} of {lpis} free"))
            .field("events", &self.routes)
            .field("faults", &faults)
            .field("last_fault", &last_fault)
            .finish_non_exhaustive()
    }
}

/// Lists the first events, one per line.
impl fmt::Debug for EventRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for (lpi, route) in self.mapped().take(LISTED) {
            let (device, event, cpu) = (route.device, route.event, cpu_of(route.collection));
            list.entry(&format_args!("DeviceID {device}, EventID {event}: {lpi} at CPU {cpu}"));
        }
        match self.mapped().count().saturating_sub(LISTED) {
            0 => list.finish(),
            more => list.entry(&format_args!("and {more} more")).finish(),
        }
    }
}
