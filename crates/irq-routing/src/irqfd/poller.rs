//! Eventfds that this process waits for: each signal calls a function.

use super::IrqfdError;
use super::serving::{Read, Serving, Taken};
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
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
use std::{fs, io};

/// Most eventfds that one call of [`EventfdPoller::dispatch`] serves.
const AT_ONCE: usize = 64;

/// Eventfds that call a function for each signal. It has one file descriptor, which is readable
/// while there is work.
///
/// While a signal is served, no lock of another eventfd is held. A function that blocks therefore
/// delays its own eventfd, and the signals that its thread has still to serve. A second thread
/// serves the others meanwhile.
pub struct EventfdPoller {
    epoll: OwnedFd,
    /// Held to look up, to add and to remove a source.
    polled: Mutex<Polled>,
}

#[derive(Default)]
struct Polled {
    /// Next token. Tokens are never reused, so that a late event of a removed source finds none.
    next: u64,
    sources: HashMap<u64, Arc<Source>>,
    /// Eventfds of those sources.
    eventfds: HashSet<EventfdId>,
}

struct Source {
    eventfd: Box<dyn AsFd + Send + Sync>,
    id: Option<EventfdId>,
    serving: Serving,
    signalled: Box<dyn Fn() + Send + Sync>,
}

/// The identity of an eventfd, however many file descriptors it has.
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
    /// Creates a poller without eventfds.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> io::Result<Arc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Arc::new(Self { epoll, polled: Mutex::default() }))
    }

    /// Calls `signalled` for each signal of an eventfd, until the result is dropped. Signals that
    /// are not served yet merge into one, and one from before counts. One thread at a time calls
    /// it. Other holders of the eventfd must neither read it nor make it block.
    ///
    /// The eventfd is held as it is given, by value or in an `Arc`; it is not duplicated. It can be
    /// added once: the eventfd counts, not its file descriptor. It is known by the `eventfd-id`
    /// that Linux shows in `/proc` since 5.2; without it, a duplicate is not noticed.
    ///
    /// # Errors
    /// The eventfd blocks, is added already, or cannot be waited for.
    pub fn add(
        self: &Arc<Self>,
        eventfd: impl AsFd + Send + Sync + 'static,
        signalled: impl Fn() + Send + Sync + 'static,
    ) -> Result<PolledEventfd, IrqfdError> {
        let id = EventfdId::of(eventfd.as_fd());
        self.add_known(eventfd, id, signalled)
    }

    /// As [`add`](Self::add), of an eventfd whose identity is known.
    pub(crate) fn add_known(
        self: &Arc<Self>,
        eventfd: impl AsFd + Send + Sync + 'static,
        id: Option<EventfdId>,
        signalled: impl Fn() + Send + Sync + 'static,
    ) -> Result<PolledEventfd, IrqfdError> {
        unblocking(eventfd.as_fd())?;
        let (eventfd, signalled) = (Box::new(eventfd), Box::new(signalled));
        let source = Arc::new(Source { eventfd, id, serving: Serving::default(), signalled });
        let mut polled = self.polled();
        if source.id.is_some_and(|id| polled.eventfds.contains(&id)) {
            return Err(IrqfdError::AlreadyBound);
        }
        let token = polled.token();
        let data = EventData::new_u64(token);
        match epoll::add(&self.epoll, source.eventfd.as_fd(), data, EventFlags::IN) {
            Err(Errno::EXIST) => return Err(IrqfdError::AlreadyBound),
            added => added?,
        }
        polled.eventfds.extend(source.id);
        polled.sources.insert(token, source);
        Ok(PolledEventfd { poller: self.clone(), token })
    }

    /// Waits for a signalled eventfd, at most for the timeout (`None`: for ever), and serves all
    /// that are signalled. Returns the number served, which is 0 if a Unix signal or another thread
    /// interfered. Any number of threads.
    ///
    /// # Errors
    /// The operating system's.
    pub fn dispatch(&self, timeout: Option<Duration>) -> io::Result<u32> {
        // A timeout that is too long for the system call means for ever.
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

    /// Serves one eventfd. Returns true if it was signalled.
    fn serve(&self, token: u64) -> bool {
        let Some(source) = self.polled().sources.get(&token).cloned() else { return false };
        match source.serving.take(|| source.read()) {
            Taken::Nothing => false,
            Taken::NoEventfd => {
                let _ = epoll::delete(&self.epoll, source.eventfd.as_fd());
                false
            }
            Taken::HandedOver => true,
            Taken::Signal(turn) => {
                turn.serve(&source.signalled);
                true
            }
        }
    }

    /// Starts a thread that serves until it is dropped. With several threads, a function that
    /// blocks delays no other.
    ///
    /// # Errors
    /// The operating system refuses a thread or an eventfd.
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
    /// The descriptor is readable while [`dispatch`](Self::dispatch) has work.
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

/// An eventfd of an [`EventfdPoller`]. Dropping it removes the eventfd: a signal that is being
/// served is completed, later ones stay in the eventfd. The function must not drop it.
#[derive(Debug)]
#[must_use = "dropping it removes the eventfd"]
pub struct PolledEventfd {
    poller: Arc<EventfdPoller>,
    token: u64,
}

impl Drop for PolledEventfd {
    fn drop(&mut self) {
        let Some(source) = self.poller.polled().remove(self.token) else { return };
        // The removal fails only for a file that is no eventfd, which is removed already.
        let _ = epoll::delete(&self.poller.epoll, source.eventfd.as_fd());
        source.serving.end();
    }
}

/// A thread that serves eventfds, until it is dropped.
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
        // Neither call fails with an eventfd that was just created and added.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = epoll::delete(&self.poller.epoll, &self.wake);
    }
}

/// Judges a file descriptor that must be non-blocking.
pub(super) fn unblocking(eventfd: BorrowedFd<'_>) -> Result<(), IrqfdError> {
    if fcntl_getfl(eventfd)?.contains(OFlags::NONBLOCK) {
        Ok(())
    } else {
        Err(IrqfdError::Blocking)
    }
}
