//! State of direct injection into a guest. [`direct`](crate::direct) changes it.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use gic_driver::its::VpeSet;
use image_rt::platform::Kernel;

/// `true` once the hardware has failed. No event is direct any more.
pub(crate) static HAS_FAILED: AtomicBool = AtomicBool::new(false);

/// Direct injection into a guest.
pub(crate) struct Injection {
    pub(crate) vpes: VpeSet<Kernel>,
    /// Number of register writes and moves in progress that may disable LPIs. While it is nonzero,
    /// no event is handed over.
    pub(crate) suspensions: AtomicU32,
}

impl Injection {
    pub(crate) fn may_hand_over(&self) -> bool {
        !HAS_FAILED.load(SeqCst) && self.suspensions.load(SeqCst) == 0
    }
}
