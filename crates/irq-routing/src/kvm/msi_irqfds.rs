//! Eventfds that send messages through KVM, for devices in the kernel and in other processes (VFIO,
//! vhost-user).
//!
//! A guest unmasks its vectors one by one, but the cost of setting a table in the kernel grows with
//! the number of routes. User space therefore serves an eventfd first: an [`EventfdPoller`] reads
//! it and sends the message. Eventfds that have been signaled are later handed over to the kernel,
//! without losing or duplicating a signal. This happens when no further eventfd has received its
//! first signal for [`QUIET`](MsiIrqfdSet::QUIET), or immediately if many eventfds are being
//! opened. One table contains the routes for all open eventfds. An eventfd that is never signaled
//! is never bound, which saves the cost of binding and unbinding it. If no GSI is free, or an IOMMU
//! blocks the message, user space keeps serving the eventfd.

use super::batch::{Backend, Batch};
use super::{Follower, KvmIrqfd, KvmRouter};
use crate::irqfd::messages::{MessageIrqfd, MessageIrqfdSet};
use crate::irqfd::{EventfdId, EventfdPoller, IrqfdError, PolledEventfd};
use crate::{RouteError, RoutedMessage, Routing, Unsettled};
use alloc::sync::Arc;
use core::time::Duration;
use msi_types::Gsi;
use rustix::fd::{AsFd, OwnedFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;

/// An eventfd and its identity. We store the identity because looking it up costs more than the
/// calls that open the eventfd.
struct Eventfd {
    file: Arc<dyn AsFd + Send + Sync>,
    id: Option<EventfdId>,
}

/// Eventfds that send messages through KVM.
///
/// The set owns a single file descriptor, for a timer that the poller serves. A thread or the VMM's
/// event loop must dispatch the poller.
///
/// ```no_run
/// use irq_routing::device_eventfds::DeviceEventfds;
/// use irq_routing::irqfd::EventfdPoller;
/// use irq_routing::kvm::{KvmRouter, MsiIrqfdSet};
/// use irq_routing::msix::MsixTable;
/// use irq_routing::Sender;
/// use msi_types::DeviceId;
/// use std::{error::Error, sync::Arc};
///
/// /// Creates an MSI-X table whose vectors a device signals through eventfds.
/// fn table(
///     router: Arc<KvmRouter>,
///     poller: Arc<EventfdPoller>,
/// ) -> Result<MsixTable, Box<dyn Error>> {
///     let eventfds = DeviceEventfds::new(MsiIrqfdSet::new(router.clone(), poller)?);
///     let table = MsixTable::new(4, Sender::Device(DeviceId::new(8)), router)?;
///     Ok(table.with_observer(Arc::new(eventfds)))
/// }
/// ```
pub struct MsiIrqfdSet(Arc<Shared>);

struct Shared {
    batch: Arc<Batch<HandOver>>,
    poller: Arc<EventfdPoller>,
    _timer: PolledEventfd,
    _follower: Arc<Follower>,
}

struct HandOver {
    router: Arc<KvmRouter>,
    poller: Arc<EventfdPoller>,
    timer: Arc<OwnedFd>,
}

impl MsiIrqfdSet {
    /// Time that the set waits before it hands signaled eventfds over to the kernel. The wait
    /// restarts when another eventfd is signaled for the first time.
    pub const QUIET: Duration = Duration::from_millis(20);

    /// Creates an empty set.
    ///
    /// # Errors
    /// Returns the operating system's error, for example if the process has no file descriptors
    /// left.
    pub fn new(router: Arc<KvmRouter>, poller: Arc<EventfdPoller>) -> Result<Self, IrqfdError> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(io::Error::from)?;
        let timer = Arc::new(timer);
        let registry = router.clone();
        let kernel = HandOver { router, poller: poller.clone(), timer: timer.clone() };
        let batch = Arc::new(Batch::new(kernel));
        let (late, moved) = (batch.clone(), batch.clone());
        let follower: Arc<Follower> =
            Arc::new(move |invalidation: &_| moved.retranslate(invalidation));
        registry.add_follower(&follower);
        let hand_over = move || {
            // If the kernel doesn't accept an eventfd, user space keeps serving it.
            let _ = late.hand_over_active();
        };
        let timer = poller.add(timer, hand_over)?;
        Ok(Self(Arc::new(Shared { batch, poller, _timer: timer, _follower: follower })))
    }

    /// Adds an eventfd, initially closed. The caller passes the eventfd by value or in an `Arc`;
    /// its descriptor is not duplicated. Other holders must neither read it nor make it blocking.
    pub fn add(&self, eventfd: impl AsFd + Send + Sync + 'static) -> MsiIrqfd {
        let eventfd = Eventfd { id: EventfdId::of(eventfd.as_fd()), file: Arc::new(eventfd) };
        MsiIrqfd { key: self.0.batch.add(eventfd), shared: self.0.clone() }
    }

    /// Immediately hands all open eventfds over to the kernel, with one table, even those that have
    /// never been signaled. Returns how many were handed over.
    ///
    /// # Errors
    /// Returns an error if there are too few GSIs or the kernel refuses the routes. Eventfds that
    /// could not be routed are still served by user space.
    pub fn hand_over(&self) -> Result<usize, RouteError> {
        self.0.batch.hand_over()
    }

    /// Waits until every signal from before this call is in the kernel's interrupt controller. Call
    /// this once the devices have stopped, and before the controller is saved. Each eventfd that
    /// the kernel serves costs two system calls.
    ///
    /// # Errors
    /// Returns [`Unsettled`] if the poller is still serving a signal after `limit`.
    pub fn settle(&self, limit: Duration) -> Result<(), Unsettled> {
        // The poller comes first, because it may hand over an eventfd that holds a signal. The
        // kernel then serves this signal in a thread of its own.
        self.0.poller.settle(limit)?;
        self.0.batch.settle();
        Ok(())
    }

    /// Returns the number of open eventfds that user space serves.
    pub fn waiting(&self) -> usize {
        self.0.batch.polled()
    }
}

impl Backend for HandOver {
    type Eventfd = Eventfd;
    type Polled = PolledEventfd;
    type Bound = KvmIrqfd<Arc<dyn AsFd + Send + Sync>>;

    fn routing(&self) -> &dyn Routing {
        &*self.router
    }

    fn poll(
        &self,
        eventfd: &Eventfd,
        signaled: impl Fn() + Send + Sync + 'static,
    ) -> Result<PolledEventfd, IrqfdError> {
        self.poller.add_known(eventfd.file.clone(), eventfd.id, signaled)
    }

    fn bind(&self, eventfd: &Eventfd, gsi: Gsi) -> io::Result<Self::Bound> {
        self.router.bind(eventfd.file.clone(), gsi)
    }

    fn takes(&self, message: RoutedMessage) -> bool {
        self.router.forwarded(message).is_some()
    }

    fn start_timer(&self) {
        let it_value = Timespec { tv_sec: 0, tv_nsec: MsiIrqfdSet::QUIET.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        // This can only fail if the file isn't a timer.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
    }
}

msi_types::debug_by!(MsiIrqfdSet as "MsiIrqfdSet", |it| {waiting: it.waiting()});

/// An eventfd that sends a message while it is open. Dropping it closes it and frees its GSI.
#[must_use = "dropping it closes the eventfd"]
pub struct MsiIrqfd {
    shared: Arc<Shared>,
    key: u64,
}

impl MsiIrqfd {
    /// Opens the eventfd. From now on, each signal sends this message, including one that the
    /// eventfd already holds.
    ///
    /// # Errors
    /// Returns an error if the eventfd is blocking or cannot be polled, in which case it is closed.
    pub fn open(&self, message: RoutedMessage) -> Result<(), IrqfdError> {
        self.shared.batch.open(self.key, message)
    }

    /// Closes the eventfd: later signals stay in the eventfd. On return, no message is being sent.
    pub fn close(&self) {
        self.shared.batch.close(self.key);
    }
}

impl MessageIrqfdSet for MsiIrqfdSet {
    type Irqfd = MsiIrqfd;

    fn add(&self, eventfd: Arc<OwnedFd>) -> MsiIrqfd {
        Self::add(self, eventfd)
    }

    fn settle(&self, limit: Duration) -> Result<(), Unsettled> {
        Self::settle(self, limit)
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

msi_types::debug_by!(MsiIrqfd as "MsiIrqfd", |it| {key: it.key});
