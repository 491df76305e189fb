//! A bound eventfd. One thread at a time serves it, without a lock; a signal that another thread
//! takes meanwhile is handed over to that thread.

use super::IrqfdError;
use crate::Pin;
use alloc::format;
use alloc::sync::Arc;
use msi_types::Gsi;
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;
use std::fs;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The identity of an eventfd, however many file descriptors it has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct EventfdId(u64);

impl EventfdId {
    /// The `eventfd-id` of Linux, Documentation/filesystems/proc.rst, "/proc/<pid>/fdinfo".
    fn of(eventfd: &OwnedFd) -> Option<Self> {
        let path = format!("/proc/thread-self/fdinfo/{}", eventfd.as_raw_fd());
        let information = fs::read_to_string(path).ok()?;
        let id = information.lines().find_map(|line| line.strip_prefix("eventfd-id:"))?;
        id.trim().parse().ok().map(Self)
    }
}

/// An eventfd and its GSI.
pub(super) struct Source {
    trigger: OwnedFd,
    id: Option<EventfdId>,
    gsi: Gsi,
    /// Of a level: what is signalled when the guest is done.
    resample: Option<Arc<OwnedFd>>,
    state: Mutex<ServeState>,
    served: Condvar,
}

/// The serving of a source's signals.
#[derive(Default)]
struct ServeState {
    phase: Phase,
    /// The bind has ended: the eventfd is read no more.
    ended: bool,
    /// The pin that it raised last, which may be lowered already.
    raised: Option<Pin>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Idle,
    /// A thread serves a signal.
    Serving,
    /// A further signal was taken meanwhile, which is that thread's to serve.
    Again,
}

/// The result of reading an eventfd.
pub(super) enum Taken<'a> {
    /// No signal, or the bind has ended.
    Nothing,
    /// It is no eventfd, but what has come to its end or cannot be read, and would be ready for ever.
    NoEventfd,
    /// A signal that another thread serves.
    HandedOver,
    /// A signal that is the caller's to serve.
    Signal(Turn<'a>),
}

/// The right to serve a source.
pub(super) struct Turn<'a> {
    source: &'a Source,
    is_over: bool,
}

impl Source {
    /// Each signal is an edge.
    pub(super) fn edge(trigger: BorrowedFd<'_>, gsi: Gsi) -> Result<Self, IrqfdError> {
        let trigger = unblocking(trigger)?;
        let id = EventfdId::of(&trigger);
        let (state, served) = Default::default();
        Ok(Self { trigger, id, gsi, resample: None, state, served })
    }

    /// A signal is a level.
    pub(super) fn level(trigger: BorrowedFd<'_>, resample: OwnedFd, gsi: Gsi) -> Result<Self, IrqfdError> {
        Ok(Self { resample: Some(Arc::new(resample)), ..Self::edge(trigger, gsi)? })
    }

    pub(super) fn trigger(&self) -> &OwnedFd {
        &self.trigger
    }

    pub(super) fn id(&self) -> Option<EventfdId> {
        self.id
    }

    pub(super) fn gsi(&self) -> Gsi {
        self.gsi
    }

    pub(super) fn resample(&self) -> Option<&Arc<OwnedFd>> {
        self.resample.as_ref()
    }

    /// Takes what was signalled. Any thread.
    pub(super) fn take_signal(&self) -> Taken<'_> {
        let mut state = self.state();
        if state.ended {
            return Taken::Nothing;
        }
        match rustix::io::read(&self.trigger, &mut [0; 8]) {
            Ok(8) if state.phase == Phase::Idle => {
                state.phase = Phase::Serving;
                Taken::Signal(Turn { source: self, is_over: false })
            }
            Ok(8) => {
                state.phase = Phase::Again;
                Taken::HandedOver
            }
            Err(Errno::AGAIN | Errno::INTR) => Taken::Nothing,
            Ok(_) | Err(_) => Taken::NoEventfd,
        }
    }

    /// The pin that the signal being served raises. Returns the one before.
    pub(super) fn set_raised(&self, pin: Option<Pin>) -> Option<Pin> {
        core::mem::replace(&mut self.state().raised, pin)
    }

    /// Ends the bind: waits until what was taken is served. Returns the pin that it raised last.
    pub(super) fn end(&self) -> Option<Pin> {
        let mut state = self.state();
        state.ended = true;
        while state.phase != Phase::Idle {
            state = self.served.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.raised.take()
    }

    /// The signals taken are served. `false`: another one was taken meanwhile.
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
    /// Rings for the signal, and for those that are handed over meanwhile.
    pub(super) fn serve(mut self, ring: impl Fn()) {
        while !self.is_over {
            ring();
            self.is_over = self.source.finish();
        }
    }
}

impl Drop for Turn<'_> {
    /// After a panic in `ring`, the bind can still end.
    fn drop(&mut self) {
        while !self.is_over {
            self.is_over = self.source.finish();
        }
    }
}

/// A copy of a file descriptor whose users never wait.
pub(super) fn unblocking(eventfd: BorrowedFd<'_>) -> Result<OwnedFd, IrqfdError> {
    if !fcntl_getfl(eventfd)?.contains(OFlags::NONBLOCK) {
        return Err(IrqfdError::Blocking);
    }
    Ok(eventfd.try_clone_to_owned()?)
}
