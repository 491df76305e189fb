//! Eventfds that send messages through KVM, for devices in the kernel and in other processes
//! (vhost-user, VFIO).
//!
//! A guest unmasks its vectors one by one, and each table that the kernel is given costs as much as
//! all of them. So an eventfd that is opened is first served by user space: an [`EventfdPoller`]
//! reads it and sends the message. Eventfds that ring are handed to the kernel, without losing or
//! doubling a signal. That happens when none has rung for the first time for
//! [`QUIET`](MsiIrqfdSet::QUIET), and at once while many are opened. One table has the routes of
//! all that are open. A vector that never rings is not bound, and costs neither a bind nor the wait
//! for its end. An eventfd for which there is no GSI stays with user space, and works.

use super::batch::{Backend, Batch};
use super::{KvmIrqfd, KvmRouter};
use crate::irqfd::messages::{MessageIrqfd, MessageIrqfdSet};
use crate::irqfd::{EventfdId, EventfdPoller, IrqfdError, PolledEventfd};
use crate::{RouteError, RoutedMessage, Routing};
use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;
use msi_types::Gsi;
use rustix::fd::{AsFd, OwnedFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;

/// An eventfd, and its identity, which costs more than the calls that open it.
struct Eventfd {
    file: Arc<dyn AsFd + Send + Sync>,
    id: Option<EventfdId>,
}

/// Eventfds that send messages through KVM.
///
/// It has one file descriptor, a timer, which the poller serves. The poller must be dispatched, by
/// a thread or by the monitor's event loop.
pub struct MsiIrqfdSet(Arc<Shared>);

struct Shared {
    batch: Arc<Batch<Kernel>>,
    _timer: PolledEventfd,
}

struct Kernel {
    router: Arc<KvmRouter>,
    poller: Arc<EventfdPoller>,
    timer: Arc<OwnedFd>,
}

impl MsiIrqfdSet {
    /// Time without another eventfd's first signal after which those that rang are handed to the
    /// kernel.
    pub const QUIET: Duration = Duration::from_millis(20);

    /// Creates an object without eventfds.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new(router: Arc<KvmRouter>, poller: Arc<EventfdPoller>) -> Result<Self, IrqfdError> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = Arc::new(timerfd_create(TimerfdClockId::Monotonic, flags)?);
        let serving = poller.clone();
        let kernel = Kernel { router, poller, timer: timer.clone() };
        let batch = Arc::new(Batch::new(kernel));
        let late = batch.clone();
        let hand_over = move || {
            // Those that the kernel does not take stay with user space.
            let _ = late.hand_over_active();
        };
        let timer = serving.add(timer, hand_over)?;
        Ok(Self(Arc::new(Shared { batch, _timer: timer })))
    }

    /// Adds an eventfd, which is closed. It is held as it is given, by value or in an `Arc`; it is
    /// not duplicated. Other holders must neither read it nor make it block.
    pub fn add(&self, eventfd: impl AsFd + Send + Sync + 'static) -> MsiIrqfd {
        let eventfd = Eventfd { id: EventfdId::of(eventfd.as_fd()), file: Arc::new(eventfd) };
        MsiIrqfd { key: self.0.batch.add(eventfd), shared: self.0.clone() }
    }

    /// Hands all open eventfds to the kernel now, by one table, whether they rang or not. Returns
    /// the number of those that it did not serve yet.
    ///
    /// # Errors
    /// There are too few GSIs, or the kernel refuses the routes. Such eventfds stay with user
    /// space.
    pub fn hand_over(&self) -> Result<usize, RouteError> {
        self.0.batch.hand_over()
    }

    /// Returns the number of open eventfds that user space serves.
    pub fn waiting(&self) -> usize {
        self.0.batch.polled()
    }
}

impl Backend for Kernel {
    type Eventfd = Eventfd;
    type Polled = PolledEventfd;
    type Bound = KvmIrqfd<Arc<dyn AsFd + Send + Sync>>;

    fn routing(&self) -> &dyn Routing {
        &*self.router
    }

    fn poll(
        &self,
        eventfd: &Eventfd,
        signalled: impl Fn() + Send + Sync + 'static,
    ) -> Result<PolledEventfd, IrqfdError> {
        self.poller.add_known(eventfd.file.clone(), eventfd.id, signalled)
    }

    fn bind(&self, eventfd: &Eventfd, gsi: Gsi) -> io::Result<Self::Bound> {
        self.router.bind(eventfd.file.clone(), gsi)
    }

    fn takes(&self, message: RoutedMessage) -> bool {
        self.router.takes(message)
    }

    fn start_timer(&self) {
        let it_value = Timespec { tv_sec: 0, tv_nsec: MsiIrqfdSet::QUIET.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        // It fails only for a file that is no timer.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
    }
}

impl fmt::Debug for MsiIrqfdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MsiIrqfdSet").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

/// An eventfd and its message. Dropping it closes it and frees its GSI.
#[must_use = "dropping it closes the eventfd"]
pub struct MsiIrqfd {
    shared: Arc<Shared>,
    key: u64,
}

impl MsiIrqfd {
    /// Sends this message for each signal from now on. A signal from before counts.
    ///
    /// # Errors
    /// The eventfd blocks, or the operating system refuses to wait for it. It is closed then.
    pub fn open(&self, message: RoutedMessage) -> Result<(), IrqfdError> {
        self.shared.batch.open(self.key, message)
    }

    /// Sends nothing from now on: signals stay in the eventfd. On return, no message is being sent.
    pub fn close(&self) {
        self.shared.batch.close(self.key);
    }
}

impl MessageIrqfdSet for MsiIrqfdSet {
    type Irqfd = MsiIrqfd;

    fn add(&self, eventfd: Arc<OwnedFd>) -> MsiIrqfd {
        Self::add(self, eventfd)
    }
}

impl MessageIrqfd for MsiIrqfd {
    fn open(&mut self, message: RoutedMessage) -> Result<(), IrqfdError> {
        Self::open(self, message)
    }

    fn close(&mut self) {
        Self::close(self);
    }
}

impl Drop for MsiIrqfd {
    fn drop(&mut self) {
        self.shared.batch.remove(self.key);
    }
}

impl fmt::Debug for MsiIrqfd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MsiIrqfd").field("key", &self.key).finish_non_exhaustive()
    }
}
