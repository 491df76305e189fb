//! Polls eventfds in this process and calls a function for each signal.

use super::serving::{Read, Serving, Taken};
use crate::Unsettled;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use std::{fs, io};

/// Maximum number of eventfds that one [`EventfdPoller::dispatch`] call serves.
const AT_ONCE: usize = 64;

/// A set of eventfds, each with a function that is called for its signals. The poller has one file
/// descriptor, which is readable while there is a signal to serve.
///
/// No lock is held while a function runs. A blocking function only delays its own eventfd and the
/// signals that its thread has already received; other threads continue to serve the rest.
pub struct EventfdPoller {
    epoll: OwnedFd,
    /// Eventfds in the set. The lock is held only to look up, add or remove an eventfd.
    polled: Mutex<Polled>,
}

#[derive(Default)]
struct Polled {
    /// The last token that was allocated. Tokens are never reused, so a late event for a removed
    /// source is ignored.
    next: u64,
    sources: HashMap<u64, Arc<Source>>,
    /// The sources' eventfds.
    eventfds: HashSet<EventfdId>,
}

struct Source {
    eventfd: Box<dyn AsFd + Send + Sync>,
    id: Option<EventfdId>,
    serving: Serving,
    signaled: Box<dyn Fn() + Send + Sync>,
}

/// An eventfd's identity, independent of its file descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct EventfdId(u64);

impl EventfdId {
    /// Reads Linux's `eventfd-id` (Documentation/filesystems/proc.rst, "/proc/<pid>/fdinfo").
    pub(crate) fn of(eventfd: BorrowedFd<'_>) -> Option<Self> {
        let path = format!("/proc/thread-self/fdinfo/{}", eventfd.as_raw_fd());
        let information = fs::read_to_string(path).ok()?;
        let id = information.lines().find_map(|line| line.strip_prefix("eventfd-id:"))?;
        id.trim().parse().ok().map(Self)
    }
}

impl EventfdPoller {
    /// Creates an empty poller.
    ///
    /// # Errors
    /// Returns the operating system's error, for example if the process has no file descriptors
    /// left.
    pub fn new() -> io::Result<Arc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Arc::new(Self { epoll, polled: Mutex::default() }))
    }

    /// Adds an eventfd, and calls `signaled` for each signal until the result is dropped. Unserved
    /// signals merge into one call of `signaled`. A signal that the eventfd already holds is
    /// served, too. At most one thread at a time runs `signaled`. Other holders of the eventfd
    /// must neither read it nor make it blocking.
    ///
    /// The caller passes the eventfd by value or in an `Arc`; its descriptor is not duplicated. An
    /// eventfd can only be added once, even through another file descriptor. We recognize
    /// duplicates by the `eventfd-id` that Linux has shown in `/proc` since 5.2; older kernels
    /// don't have it, so duplicates go unnoticed there.
    ///
    /// # Errors
    /// Returns an error if the eventfd is blocking, is already added, or cannot be polled.
    pub fn add(
        self: &Arc<Self>,
        eventfd: impl AsFd + Send + Sync + 'static,
        signaled: impl Fn() + Send + Sync + 'static,
    ) -> Result<PolledEventfd, IrqfdError> {
        let id = EventfdId::of(eventfd.as_fd());
        self.add_known(eventfd, id, signaled)
    }

    /// Adds an eventfd whose identity is already known; see [`add`](Self::add).
    pub(crate) fn add_known(
        self: &Arc<Self>,
        eventfd: impl AsFd + Send + Sync + 'static,
        id: Option<EventfdId>,
        signaled: impl Fn() + Send + Sync + 'static,
    ) -> Result<PolledEventfd, IrqfdError> {
        unblocking(eventfd.as_fd())?;
        let (eventfd, signaled) = (Box::new(eventfd), Box::new(signaled));
        let source = Arc::new(Source { eventfd, id, serving: Serving::default(), signaled });
        let mut polled = self.polled();
        if source.id.is_some_and(|id| polled.eventfds.contains(&id)) {
            return Err(IrqfdError::AlreadyBound);
        }
        let token = polled.token();
        let data = EventData::new_u64(token);
        match epoll::add(&self.epoll, source.eventfd.as_fd(), data, EventFlags::IN) {
            Err(Errno::EXIST) => return Err(IrqfdError::AlreadyBound),
            added => added.map_err(io::Error::from)?,
        }
        polled.eventfds.extend(source.id);
        polled.sources.insert(token, source);
        Ok(PolledEventfd { poller: self.clone(), token })
    }

    /// Waits until an eventfd is signaled or the timeout expires (`None` waits forever), then
    /// serves up to 64 signaled eventfds. Returns how many were served. This may be 0 if a Unix
    /// signal interrupted the wait, or if another thread served the signal first. Any number of
    /// threads may call this concurrently.
    ///
    /// # Errors
    /// Returns the operating system's error if the wait fails.
    pub fn dispatch(&self, timeout: Option<Duration>) -> io::Result<u32> {
        // If the timeout is too long for the system call, wait forever.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut events =
            [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; AT_ONCE];
        let ready = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok(ready) => ready,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let served = events.iter().take(ready).filter(|event| self.serve({ event.data }.u64()));
        Ok(u32::try_from(served.count()).unwrap_or(u32::MAX))
    }

    /// Serves every signal from before this call, and waits for other threads that have already
    /// read such a signal. Call this once the devices have stopped, and before the interrupt
    /// controller is saved; otherwise, signals that are still in eventfds are in no saved state.
    /// The function that serves an eventfd must not call this.
    ///
    /// # Errors
    /// Returns [`Unsettled`] if another thread is still serving a signal after `limit`. The limit
    /// does not apply to functions that this call itself runs.
    pub fn settle(&self, limit: Duration) -> Result<(), Unsettled> {
        let start = Instant::now();
        let sources: Vec<_> = self.polled().sources.values().cloned().collect();
        for source in &sources {
            self.serve_source(source);
        }
        let is_idle = |source: &Arc<Source>| source.serving.wait_until_idle(start, limit);
        if sources.iter().all(is_idle) { Ok(()) } else { Err(Unsettled(limit)) }
    }

    /// Serves one eventfd. Returns `true` if the eventfd had been signaled.
    fn serve(&self, token: u64) -> bool {
        let source = self.polled().sources.get(&token).cloned();
        source.is_some_and(|source| self.serve_source(&source))
    }

    fn serve_source(&self, source: &Source) -> bool {
        match source.serving.take(|| source.read()) {
            Taken::Nothing => false,
            Taken::NoEventfd => {
                let _ = epoll::delete(&self.epoll, source.eventfd.as_fd());
                false
            }
            Taken::HandedOver => true,
            Taken::Signal(turn) => {
                turn.serve(&source.signaled);
                true
            }
        }
    }

    /// Spawns a thread that serves signals until the result is dropped. If several threads are
    /// spawned, one of them can block in a function while the others serve further signals.
    ///
    /// # Errors
    /// Returns the operating system's error if the thread or its eventfd cannot be created.
    pub fn spawn(self: &Arc<Self>) -> io::Result<IrqfdThread> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let token = self.polled().token();
        epoll::add(&self.epoll, &wake, EventData::new_u64(token), EventFlags::IN)?;
        let stop = Arc::new(AtomicBool::new(false));
        let serving = {
            let (poller, stop) = (self.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::SeqCst) {
                    poller.dispatch(None)?;
                }
                Ok(())
            }
        };
        let thread = thread::Builder::new().name("irqfd".into()).spawn(serving)?;
        Ok(IrqfdThread { poller: self.clone(), wake, stop, thread: Some(thread) })
    }

    fn polled(&self) -> MutexGuard<'_, Polled> {
        self.polled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Polled {
    fn token(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn remove(&mut self, token: u64) -> Option<Arc<Source>> {
        let source = self.sources.remove(&token)?;
        if let Some(id) = source.id {
            self.eventfds.remove(&id);
        }
        Some(source)
    }
}

impl Source {
    fn read(&self) -> Read {
        match rustix::io::read(self.eventfd.as_fd(), &mut [0; 8]) {
            Ok(8) => Read::Signal,
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            Ok(_) | Err(_) => Read::NoEventfd,
        }
    }
}

impl AsFd for EventfdPoller {
    /// The descriptor is readable while there is work for [`dispatch`](Self::dispatch).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl fmt::Debug for EventfdPoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let polled = self.polled().sources.len();
        f.debug_struct("EventfdPoller").field("polled", &polled).finish_non_exhaustive()
    }
}

/// An eventfd in an [`EventfdPoller`]. Dropping it removes the eventfd: the drop waits for a signal
/// that is being served, and later signals stay in the eventfd. The function that serves the
/// eventfd must not drop this object, because the drop would wait for that function to return.
#[derive(Debug)]
#[must_use = "dropping it removes the eventfd"]
pub struct PolledEventfd {
    poller: Arc<EventfdPoller>,
    token: u64,
}

impl Drop for PolledEventfd {
    fn drop(&mut self) {
        let Some(source) = self.poller.polled().remove(self.token) else { return };
        // The removal can only fail if the file isn't an eventfd. In that case, `serve` has already
        // removed it.
        let _ = epoll::delete(&self.poller.epoll, source.eventfd.as_fd());
        source.serving.end();
    }
}

/// Handle to a thread that serves eventfds. Dropping it stops the thread.
#[derive(Debug)]
#[must_use = "dropping it stops the thread"]
pub struct IrqfdThread {
    poller: Arc<EventfdPoller>,
    wake: OwnedFd,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Drop for IrqfdThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // The write and the removal can't fail: `spawn` created and added `wake`.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = epoll::delete(&self.poller.epoll, &self.wake);
    }
}

/// Checks that a file descriptor is non-blocking.
pub(crate) fn unblocking(eventfd: BorrowedFd<'_>) -> Result<(), IrqfdError> {
    if fcntl_getfl(eventfd).map_err(io::Error::from)?.contains(OFlags::NONBLOCK) {
        Ok(())
    } else {
        Err(IrqfdError::Blocking)
    }
}

/// Reason why an eventfd cannot be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IrqfdError {
    /// The eventfd is blocking: reading or signaling it could stall all other interrupts. The
    /// caller is at fault.
    #[error("the eventfd is blocking: create it with EFD_NONBLOCK")]
    Blocking,
    /// The eventfd is already bound. The caller is at fault.
    #[error("the eventfd is already bound: an eventfd can be bound only once")]
    AlreadyBound,
    /// A system call failed.
    #[error(transparent)]
    System(#[from] io::Error),
}
