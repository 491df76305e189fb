//! Cache coherence of interrupt controllers, according to firmware.

/// Coherence of a controller's own memory accesses with the CPUs' caches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coherence {
    /// Coherent if the controller's registers say so: a shareability field that reads back as
    /// written is supported.
    ByRegister,
    /// Not coherent, regardless of what the registers read back as (`dma-noncoherent`, MADT flag
    /// *non-coherent*).
    NonCoherent,
}
