//! Barriers beyond those of [`core::sync::atomic`], which order the accesses of CPUs alone.

/// Orders later loads of memory after earlier reads of registers, for what a controller wrote. The
/// controller may be an observer of the outer shareable domain, as Linux assumes for devices
/// (`dma_rmb`).
pub(crate) fn observe_device() {
    #[cfg(target_arch = "aarch64")]
    crate::sysreg::barrier_outer_loads();
    #[cfg(not(target_arch = "aarch64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Waits until all earlier accesses took effect, those by system registers among them.
pub(crate) fn complete() {
    #[cfg(target_arch = "aarch64")]
    crate::sysreg::barrier_system();
    #[cfg(not(target_arch = "aarch64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Eight instructions that do nothing, where an erratum wants a distance.
pub(crate) fn eight_nops() {
    #[cfg(target_arch = "aarch64")]
    crate::sysreg::eight_nops();
}
