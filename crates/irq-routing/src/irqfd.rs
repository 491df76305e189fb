//! Eventfds that signal GSIs, for devices in other threads and processes (vhost-user, VFIO). This
//! is the kernel's `KVM_IRQFD`, over a model in this process.
//!
//! An [`Irqfds`] waits for any number of eventfds, in a thread of its own
//! ([`spawn`](Irqfds::spawn)) or in the monitor's event loop ([`dispatch`](Irqfds::dispatch)). The
//! object itself becomes readable when an eventfd is signalled. An [`Irqfd`] is one bound eventfd;
//! dropping it ends the bind. Routes are looked up at each signal, so that a changed route counts
//! for the next signal.
//!
//! | | signalled | end of interrupt | dropped |
//! |---|---|---|---|
//! | [`bind`](Irqfds::bind) | an edge: the message is sent, or the pin pulsed | – | – |
//! | [`bind_level`](Irqfds::bind_level) | the pin stays high | the pin is lowered, then the other eventfd signalled, so that the device can signal again | the pin is lowered |
//!
//! ```
//! use irq_routing::irqfd::Irqfds;
//! use irq_routing::{Change, GsiSpace, Inputs, Pin, Route, Router, Routing};
//! use msi_types::{Delivery, Gsi, Level, Line, SetLine};
//! use rustix::event::{EventfdFlags, eventfd};
//! use std::sync::Arc;
//!
//! struct Gic;
//! impl SetLine for Gic {
//!     fn set_line(&self, line: Line, level: Level) -> Delivery {
//!         println!("{line:?} is {level:?}");
//!         Delivery::Pending
//!     }
//!
//!     fn pulse(&self, line: Line) -> Delivery {
//!         println!("an edge on {line:?}");
//!         Delivery::Pending
//!     }
//! }
//!
//! let router = Arc::new(Router::new(GsiSpace::default(), Inputs::new(Arc::new(Gic)))?);
//! router.commit(&[Change::Set(Gsi::new(5), Route::Pin(Pin::of_spi(40)?))])?;
//!
//! let irqfds = Irqfds::new(router)?;
//! let device = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
//! let _bound = irqfds.bind(&device, Gsi::new(5))?;
//!
//! rustix::io::write(&device, &1u64.to_ne_bytes())?; // the device's side
//! assert_eq!(irqfds.dispatch(None)?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod levels;
mod source;

use crate::{MessageSink, Route, Router, Routing};
use alloc::sync::{Arc, Weak};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use levels::Levels;
use msi_types::{Gsi, Line, LineObserver};
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use source::{EventfdId, Source, Taken, unblocking};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Most eventfds that one call of [`Irqfds::dispatch`] serves.
const AT_ONCE: usize = 64;

/// Reason for which an eventfd cannot be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IrqfdError {
    /// Reading or signalling the eventfd could block all other interrupts. The caller's mistake.
    #[error("the eventfd blocks its users: make it with EFD_NONBLOCK")]
    Blocking,
    /// The eventfd is bound to a GSI already. The caller's mistake.
    #[error("the eventfd is bound already: an eventfd rings one GSI")]
    AlreadyBound,
    /// The operating system refused.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Errno> for IrqfdError {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}

/// Bound eventfds and their GSIs.
///
/// While a signal is served, no lock of another eventfd is held; a pin's level is driven under that
/// pin's lock. A kick that blocks therefore delays its own eventfd, other levels of the same pin,
/// and the signals that its thread has still to serve. A second thread serves the others meanwhile.
/// Code that the interrupt controller model calls, such as a kick, must not end the bind that it is
/// called for.
pub struct Irqfds {
    epoll: OwnedFd,
    router: Arc<Router>,
    /// Held to look up, to add and to remove a source.
    bound: Mutex<Bound>,
    levels: Levels,
}

#[derive(Default)]
struct Bound {
    /// Next token. Tokens are never reused, so that a late event of an ended bind finds no source.
    next: u64,
    sources: HashMap<u64, Arc<Source>>,
    /// Eventfds of those sources.
    eventfds: HashSet<EventfdId>,
}

impl Irqfds {
    /// Creates an object without bound eventfds.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new(router: Arc<Router>) -> io::Result<Arc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Arc::new(Self { epoll, router, bound: Mutex::default(), levels: Levels::default() }))
    }

    /// Binds an eventfd to a GSI: each signal of `trigger` is an edge, routed or not. Signals that
    /// are not served yet merge into one, and one from before the bind counts. Other holders of the
    /// eventfd must neither read it nor make it block.
    ///
    /// An eventfd can be bound to one GSI, as with `KVM_IRQFD`, which answers `EBUSY` to a second
    /// one. The eventfd counts, not its file descriptor. It is known by the `eventfd-id` that Linux
    /// shows in `/proc` since 5.2; without it, a second bind is not noticed.
    ///
    /// # Errors
    /// An eventfd blocks, is bound already, or cannot be waited for.
    pub fn bind(self: &Arc<Self>, trigger: impl AsFd, gsi: Gsi) -> Result<Irqfd, IrqfdError> {
        self.enter(Source::edge(trigger.as_fd(), gsi)?)
    }

    /// Binds an eventfd to a GSI's level: a signal of `trigger` raises the pin. The end of the
    /// interrupt, reported to the [`observer`](Self::observer), lowers the pin and signals
    /// `resample`; the device then signals again if its reason persists. A GSI that is routed to a
    /// message is served as by [`bind`](Self::bind).
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_level(
        self: &Arc<Self>,
        trigger: impl AsFd,
        resample: impl AsFd,
        gsi: Gsi,
    ) -> Result<Irqfd, IrqfdError> {
        let resample = unblocking(resample.as_fd())?;
        self.enter(Source::level(trigger.as_fd(), resample, gsi)?)
    }

    /// Returns the observer of ended interrupts for [`bind_level`](Self::bind_level), to be given
    /// to the interrupt controller model. It keeps nothing alive.
    pub fn observer(self: &Arc<Self>) -> Arc<dyn LineObserver> {
        Arc::new(Observer(Arc::downgrade(self)))
    }

    fn enter(self: &Arc<Self>, source: Source) -> Result<Irqfd, IrqfdError> {
        let source = Arc::new(source);
        let mut bound = self.bound();
        if source.id().is_some_and(|id| bound.eventfds.contains(&id)) {
            return Err(IrqfdError::AlreadyBound);
        }
        let token = bound.token();
        epoll::add(&self.epoll, source.trigger(), EventData::new_u64(token), EventFlags::IN)?;
        bound.eventfds.extend(source.id());
        bound.sources.insert(token, source);
        Ok(Irqfd { irqfds: self.clone(), token })
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
        let Some(source) = self.bound().sources.get(&token).cloned() else { return false };
        match source.take_signal() {
            Taken::Nothing => false,
            Taken::NoEventfd => {
                let _ = epoll::delete(&self.epoll, source.trigger());
                false
            }
            Taken::HandedOver => true,
            Taken::Signal(turn) => {
                turn.serve(|| self.ring(&source, token));
                true
            }
        }
    }

    fn ring(&self, source: &Source, token: u64) {
        let Some(resample) = source.resample() else {
            // A signal without a route is lost, as in the kernel.
            let _ = self.router.signal(source.gsi());
            return;
        };
        let pin = match self.router.route(source.gsi()) {
            Some(Route::Pin(pin)) => Some(pin),
            Some(Route::Message(message)) => {
                let _ = self.router.signal_msi(message);
                None
            }
            None => None,
        };
        let before = source.set_raised(pin);
        if let Some(before) = before.filter(|_| before != pin) {
            self.levels.release(&self.router, before, token);
        }
        if let Some(pin) = pin {
            self.levels.raise(&self.router, pin, token, resample);
        }
    }

    /// Starts a thread that serves until it is dropped. With several threads, an interrupt whose
    /// kick blocks delays no other.
    ///
    /// # Errors
    /// The operating system refuses a thread or an eventfd.
    pub fn spawn(self: &Arc<Self>) -> io::Result<IrqfdThread> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let token = self.bound().token();
        epoll::add(&self.epoll, &wake, EventData::new_u64(token), EventFlags::IN)?;
        let stop = Arc::new(AtomicBool::new(false));
        let serving = {
            let (irqfds, stop) = (self.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::SeqCst) {
                    irqfds.dispatch(None)?;
                }
                Ok(())
            }
        };
        let thread = thread::Builder::new().name("irqfd".into()).spawn(serving)?;
        Ok(IrqfdThread { irqfds: self.clone(), wake, stop, thread: Some(thread) })
    }

    fn bound(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bound {
    fn token(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn remove(&mut self, token: u64) -> Option<Arc<Source>> {
        let source = self.sources.remove(&token)?;
        if let Some(id) = source.id() {
            self.eventfds.remove(&id);
        }
        Some(source)
    }
}

/// Observer of ended interrupts. Holds a weak reference: the controller keeps it, and the routes
/// keep the controller.
struct Observer(Weak<Irqfds>);

impl LineObserver for Observer {
    fn deactivated(&self, line: Line) {
        if let Some(irqfds) = self.0.upgrade() {
            irqfds.levels.resample(&irqfds.router, line);
        }
    }
}

impl AsFd for Irqfds {
    /// The descriptor is readable while [`dispatch`](Self::dispatch) has work.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl fmt::Debug for Irqfds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Irqfds").field("bound", &self.bound().sources.len()).finish_non_exhaustive()
    }
}

/// A bound eventfd. Dropping it ends the bind: a signal that is being served is completed, later
/// ones stay in the eventfd, and a pin that it alone held high is lowered.
#[derive(Debug)]
#[must_use = "dropping it ends the bind"]
pub struct Irqfd {
    irqfds: Arc<Irqfds>,
    token: u64,
}

impl Drop for Irqfd {
    fn drop(&mut self) {
        let Some(source) = self.irqfds.bound().remove(self.token) else { return };
        // The removal fails only for a file that is no eventfd, which is removed already.
        let _ = epoll::delete(&self.irqfds.epoll, source.trigger());
        if let Some(pin) = source.end() {
            self.irqfds.levels.release(&self.irqfds.router, pin, self.token);
        }
    }
}

/// A thread that serves irqfds, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it stops the thread"]
pub struct IrqfdThread {
    irqfds: Arc<Irqfds>,
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
        let _ = epoll::delete(&self.irqfds.epoll, &self.wake);
    }
}
