//! The locks of the simulated hardware, as opposed to the drivers' locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex` and ignores poisoning: the panic has already been reported, and the protected data
/// is still the machine's state.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
