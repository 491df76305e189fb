//! A minimal implementation of the spin lock that `arm_vgic` requires from the kernel.

use ax_sync::interface::{AcquireResult, ContextState, LockMetadata, SpinOps};
use std::hint::spin_loop;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};

struct Plain;

/// Interrupts are not masked, because this process has none.
const CONTEXT: ContextState = ContextState::new(0, 0);

fn try_lock(locked: &AtomicBool) -> bool {
    locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
}

#[ax_crate_interface::impl_interface]
impl SpinOps for Plain {
    fn acquire(
        locked: &AtomicBool,
        _metadata: &LockMetadata,
        _lock: usize,
        _context: u8,
        _subclass: u32,
        _caller: &'static Location<'static>,
    ) -> ContextState {
        while !try_lock(locked) {
            while locked.load(Ordering::Relaxed) {
                spin_loop();
            }
        }
        CONTEXT
    }

    fn try_acquire(
        locked: &AtomicBool,
        _metadata: &LockMetadata,
        _lock: usize,
        _context: u8,
        _subclass: u32,
        _caller: &'static Location<'static>,
    ) -> AcquireResult {
        AcquireResult::new(try_lock(locked), CONTEXT)
    }

    fn release(locked: &AtomicBool, _lock: usize, _context: u8, _state: ContextState) {
        locked.store(false, Ordering::Release);
    }

    fn force_release(locked: &AtomicBool, _lock: usize, _context: u8) {
        locked.store(false, Ordering::Release);
    }

    fn is_locked(locked: &AtomicBool) -> bool {
        locked.load(Ordering::Relaxed)
    }
}
