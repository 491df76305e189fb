//! Serves one eventfd, one thread at a time, without holding the lock. If another thread reads a
//! further signal in the meantime, it hands that signal to the serving thread.
//!
//! 1. A thread reads the eventfd under the lock. If no other thread is serving, this thread starts
//!    to serve; otherwise, it leaves the signal to the serving thread.
//! 2. The serving thread sends without the lock. Then, under the lock, it either stops serving or
//!    continues with a signal that was left to it.
//! 3. To end the service, a thread forbids further reads and waits until no thread is serving.
//!    Later signals stay in the eventfd.

use crate::sync::{Condvar, Mutex, MutexGuard};
use core::time::Duration;
use std::sync::PoisonError;
use std::time::Instant;

#[derive(Default)]
pub(crate) struct Serving {
    state: Mutex<ServeState>,
    served: Condvar,
}

#[derive(Default)]
struct ServeState {
    phase: Phase,
    /// The service has ended. The eventfd must not be read.
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Idle,
    /// A thread is serving a signal.
    Serving,
    /// Another signal was read in the meantime, and the serving thread must serve it too.
    Again,
}

/// Result of reading an eventfd.
pub(crate) enum Read {
    Nothing,
    Signal,
    /// The file isn't an eventfd, and is at its end or unreadable. `epoll` would report it as ready
    /// forever.
    NoEventfd,
}

/// Result of an attempt to serve an eventfd.
pub(crate) enum Taken<'a> {
    /// There was no signal, or the service has ended.
    Nothing,
    /// The file is not an eventfd.
    NoEventfd,
    /// A signal was read and left to the serving thread.
    HandedOver,
    /// A signal was read, and the caller must serve it.
    Signal(Turn<'a>),
}

/// The exclusive right to serve an eventfd.
pub(crate) struct Turn<'a> {
    serving: &'a Serving,
    is_over: bool,
}

impl Serving {
    /// Reads a signal with `read`, and decides which thread will serve it.
    ///
    /// Context: any.
    pub(crate) fn take(&self, read: impl FnOnce() -> Read) -> Taken<'_> {
        let mut state = self.state();
        if state.ended {
            return Taken::Nothing;
        }
        match read() {
            Read::Signal if state.phase == Phase::Idle => {
                state.phase = Phase::Serving;
                Taken::Signal(Turn { serving: self, is_over: false })
            }
            Read::Signal => {
                state.phase = Phase::Again;
                Taken::HandedOver
            }
            Read::Nothing => Taken::Nothing,
            Read::NoEventfd => Taken::NoEventfd,
        }
    }

    /// Ends the service, and waits until all signals that were already read have been served.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        while state.phase != Phase::Idle {
            state = self.served.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until all signals that were already read have been served. Returns `false` if that is
    /// not the case `limit` after `start`.
    pub(crate) fn wait_until_idle(&self, start: Instant, limit: Duration) -> bool {
        let mut state = self.state();
        while state.phase != Phase::Idle {
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return false;
            }
            let waited = self.served.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Ends a turn. If another signal was read in the meantime, returns `false`, and the turn
    /// continues.
    fn finish(&self) -> bool {
        let mut state = self.state();
        if state.phase == Phase::Again {
            state.phase = Phase::Serving;
            return false;
        }
        state.phase = Phase::Idle;
        self.served.notify_all();
        true
    }

    fn state(&self) -> MutexGuard<'_, ServeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Calls `send` for the signal, and again for each one that is read in the meantime.
    pub(crate) fn serve(mut self, send: impl Fn()) {
        while !self.is_over {
            send();
            self.is_over = self.serving.finish();
        }
    }
}

impl Drop for Turn<'_> {
    /// Ends the turn even if `send` panicked, so that the service can still end.
    fn drop(&mut self) {
        while !self.is_over {
            self.is_over = self.serving.finish();
        }
    }
}
