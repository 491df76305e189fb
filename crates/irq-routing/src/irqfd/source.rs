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
    /// Reads Linux's `eventfd-id` (Documentation/filesystems/proc.rst, "/proc/<pid>/fdinfo").
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
    /// Eventfd that is signalled at the end of the interrupt, if the source is a level.
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
    /// A further signal was taken meanwhile; the same thread serves it.
    Again,
}

/// The result of reading an eventfd.
pub(super) enum Taken<'a> {
    /// No signal, or the bind has ended.
    Nothing,
    /// The file is no eventfd, and is at its end or unreadable: it would be ready for ever.
    NoEventfd,
    /// A signal that the serving thread takes over.
    HandedOver,
    /// A signal that the caller must serve.
    Signal(Turn<'a>),
}

/// The right to serve a source.
pub(super) struct Turn<'a> {
    source: &'a Source,
    is_over: bool,
}

impl Source {
    /// Creates a source of edges.
    pub(super) fn edge(trigger: BorrowedFd<'_>, gsi: Gsi) -> Result<Self, IrqfdError> {
        let trigger = unblocking(trigger)?;
        let id = EventfdId::of(&trigger);
        let (state, served) = Default::default();
        Ok(Self { trigger, id, gsi, resample: None, state, served })
    }

    /// Creates a source of levels.
    pub(super) fn level(
        trigger: BorrowedFd<'_>,
        resample: OwnedFd,
        gsi: Gsi,
    ) -> Result<Self, IrqfdError> {
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

    /// Reads the eventfd. Any thread.
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

    /// Sets the pin that the signal being served raises. Returns the previous one.
    pub(super) fn set_raised(&self, pin: Option<Pin>) -> Option<Pin> {
        core::mem::replace(&mut self.state().raised, pin)
    }

    /// Ends the bind and waits until taken signals are served. Returns the pin that it raised last.
    pub(super) fn end(&self) -> Option<Pin> {
        let mut state = self.state();
        state.ended = true;
        while state.phase != Phase::Idle {
            state = self.served.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.raised.take()
    }

    /// Ends the serving. Returns false if another signal was taken meanwhile.
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
    /// Calls `ring` for the signal, and for those that are taken meanwhile.
    pub(super) fn serve(mut self, ring: impl Fn()) {
        while !self.is_over {
            ring();
            self.is_over = self.source.finish();
        }
    }
}

impl Drop for Turn<'_> {
    /// After a panic in `ring`, the bind must still be able to end.
    fn drop(&mut self) {
        while !self.is_over {
            self.is_over = self.source.finish();
        }
    }
}

/// Duplicates a file descriptor that must be non-blocking.
pub(super) fn unblocking(eventfd: BorrowedFd<'_>) -> Result<OwnedFd, IrqfdError> {
    if !fcntl_getfl(eventfd)?.contains(OFlags::NONBLOCK) {
        return Err(IrqfdError::Blocking);
    }
    Ok(eventfd.try_clone_to_owned()?)
}
