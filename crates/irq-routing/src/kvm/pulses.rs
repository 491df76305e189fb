//! Edges on pins whose level the kernel takes.

use crate::lock::Mutex;

/// Serializes edges. The I/O APIC ignores an edge on a pin that is already high, so concurrent
/// pulses of one pin would merge. (The GIC in KVM latches an edge for each level of 1.)
#[derive(Default)]
pub(crate) struct Pulses(Mutex<()>);

impl Pulses {
    /// Raises and lowers a pin by calling `drive`.
    pub(crate) fn pulse<E>(&self, drive: impl FnMut(bool) -> Result<(), E>) -> Result<(), E> {
        let _pulse = self.0.lock();
        [true, false].map(drive).into_iter().collect()
    }
}
