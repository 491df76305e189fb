//! The serving of one eventfd. One thread at a time serves it, without a lock; a signal that
//! another thread takes meanwhile is handed over to that thread.
//!
//! 1. A server reads the eventfd under the lock. If nobody serves, it has the turn; else it leaves
//!    the signal to the serving thread.
//! 2. The serving thread sends, then ends its turn under the lock, or goes on with a signal that
//!    was left to it.
//! 3. An ender forbids further reads, then waits until nobody serves. Later signals stay in the
//!    eventfd.

use crate::sync::{Condvar, Mutex, MutexGuard};
use std::sync::PoisonError;

#[derive(Default)]
pub(crate) struct Serving {
    state: Mutex<ServeState>,
    served: Condvar,
}

#[derive(Default)]
struct ServeState {
    phase: Phase,
    /// The eventfd is read no more.
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Idle,
    /// A thread serves a signal.
    Serving,
    /// A further signal was taken meanwhile; the same thread serves it.
    Again,
}

/// The result of reading an eventfd.
pub(crate) enum Read {
    Nothing,
    Signal,
    /// The file is no eventfd, and is at its end or unreadable: it would be ready for ever.
    NoEventfd,
}

/// The result of an attempt to serve.
pub(crate) enum Taken<'a> {
    /// No signal, or the service has ended.
    Nothing,
    /// The file is no eventfd.
    NoEventfd,
    /// A signal that the serving thread takes over.
    HandedOver,
    /// A signal that the caller must serve.
    Signal(Turn<'a>),
}

/// The right to serve an eventfd.
pub(crate) struct Turn<'a> {
    serving: &'a Serving,
    is_over: bool,
}

impl Serving {
    /// Consumes a signal by `read`.
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

    /// Ends the service and waits until taken signals are served.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        while state.phase != Phase::Idle {
            state = self.served.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends a turn. Returns false if another signal was taken meanwhile.
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
    /// Calls `send` for the signal, and for those that are taken meanwhile.
    pub(crate) fn serve(mut self, send: impl Fn()) {
        while !self.is_over {
            send();
            self.is_over = self.serving.finish();
        }
    }
}

impl Drop for Turn<'_> {
    /// After a panic in `send`, the service must still be able to end.
    fn drop(&mut self) {
        while !self.is_over {
            self.is_over = self.serving.finish();
        }
    }
}
