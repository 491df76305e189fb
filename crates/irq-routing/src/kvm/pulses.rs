//! Edges of pins whose levels the kernel is told.

use crate::lock::Mutex;
use msi_types::Delivery;

/// Makes edges, one at a time. The I/O APIC takes no edge from a pin that is high. (Arm's interrupt
/// controller latches an edge for each level of 1.)
#[derive(Default)]
pub(crate) struct Pulses(Mutex<()>);

impl Pulses {
    /// Raises a pin and lowers it, by `drive`.
    pub(crate) fn pulse<E>(&self, drive: impl FnMut(bool) -> Result<(), E>) -> Delivery {
        let _pulse = self.0.lock();
        let driven = [true, false].map(drive);
        if driven.iter().all(Result::is_ok) { Delivery::Pending } else { Delivery::Blocked }
    }
}
