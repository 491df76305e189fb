//! Coherence of controllers with the CPUs' caches, as firmware states it.

/// Coherence of a controller's own memory accesses with the CPUs' caches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coherence {
    /// The controller's registers decide: a shareability field that reads back as written is
    /// honored.
    ByRegister,
    /// Not coherent, whatever the registers read back (`dma-noncoherent`, MADT flag
    /// *non-coherent*).
    NonCoherent,
}
