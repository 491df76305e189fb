//! Cache coherence of interrupt controllers, according to firmware.

/// Coherence of a controller's own memory accesses with the CPUs' caches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coherence {
    /// The controller's registers decide: a shareability field that reads back as written is
    /// honored.
    ByRegister,
    /// Not coherent, regardless of what the registers read back as (`dma-noncoherent`, MADT flag
    /// *non-coherent*).
    NonCoherent,
}
