//! Edges of pins whose levels the kernel is told.

use crate::lock::Mutex;

/// Makes edges, one at a time. The I/O APIC takes no edge from a pin that is high. (Arm's interrupt
/// controller latches an edge for each level of 1.)
#[derive(Default)]
pub(crate) struct Pulses(Mutex<()>);

impl Pulses {
    /// Raises a pin and lowers it, by `drive`.
    pub(crate) fn pulse<E>(&self, drive: impl FnMut(bool) -> Result<(), E>) -> Result<(), E> {
        let _pulse = self.0.lock();
        [true, false].map(drive).into_iter().collect()
    }
}
