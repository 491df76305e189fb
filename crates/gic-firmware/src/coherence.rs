//! Cache coherence of interrupt controllers, according to firmware.

/// Coherence of a controller's own memory accesses with the CPUs' caches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coherence {
    /// Stated by the controller's registers: accesses are coherent if a shareability field reads
    /// back as written.
    ByRegister,
    /// Not coherent, regardless of what the registers read back as (`dma-noncoherent`, MADT flag
    /// *non-coherent*).
    NonCoherent,
}
