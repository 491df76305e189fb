//! Edges on pins that the kernel drives by level.

use crate::lock::Mutex;

/// Serializes edges. The I/O APIC ignores an edge if the pin is already high, so concurrent pulses
/// on one pin would merge. (The GIC in KVM latches an edge each time the level is set to 1.)
#[derive(Default)]
pub(crate) struct Pulses(Mutex<()>);

impl Pulses {
    /// Raises and lowers a pin with `drive`.
    pub(crate) fn pulse<E>(&self, drive: impl FnMut(bool) -> Result<(), E>) -> Result<(), E> {
        let _pulse = self.0.lock();
        [true, false].map(drive).into_iter().collect()
    }
}
