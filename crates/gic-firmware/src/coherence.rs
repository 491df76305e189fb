//! Coherence of controllers with the CPUs' caches, as firmware states it.

/// Coherence of a controller's own memory accesses with the CPUs' caches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coherence {
    /// As the controller's registers say: shareability that reads back is honoured.
    ByRegister,
    /// Never, whatever the registers read back (`dma-noncoherent`, MADT flag *non-coherent*).
    NonCoherent,
}
