//! Barriers beyond those of [`core::sync::atomic`], which order the accesses of CPUs alone.

/// Orders later loads of memory after earlier reads of registers, for what a controller wrote: it
/// may be an observer of the outer shareable domain, as Linux assumes for devices (`dma_rmb`).
pub(crate) fn observe_device() {
    #[cfg(target_arch = "aarch64")]
    crate::sysreg::barrier_outer_loads();
    #[cfg(not(target_arch = "aarch64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}
