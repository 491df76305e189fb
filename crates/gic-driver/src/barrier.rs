//! Barriers for devices and system registers. The fences of [`core::sync::atomic`] only order
//! accesses between CPUs.

/// Orders later loads of controller-written memory after earlier register reads. The controller may
/// be an observer in the outer shareable domain, as Linux assumes for devices (`dma_rmb`).
pub(crate) fn observe_device() {
    #[cfg(target_arch = "aarch64")]
    crate::sysreg::barrier_outer_loads();
    #[cfg(not(target_arch = "aarch64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Waits until all earlier accesses, including those to system registers, have taken effect.
pub(crate) fn complete() {
    #[cfg(target_arch = "aarch64")]
    crate::sysreg::barrier_system();
    #[cfg(not(target_arch = "aarch64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Executes eight NOPs, for errata that require a minimum distance between two instructions.
pub(crate) fn eight_nops() {
    #[cfg(target_arch = "aarch64")]
    crate::sysreg::eight_nops();
}
