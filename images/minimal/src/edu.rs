//! Constants of QEMU's educational device, `edu`.

/// Vendor and device ID.
pub(crate) const EDU: (u16, u16) = (0x1234, 0x11e8);
/// Register that raises the interrupt.
pub(crate) const RAISE: u64 = 0x60;
/// Register that acknowledges the interrupt.
pub(crate) const ACKNOWLEDGE: u64 = 0x64;
