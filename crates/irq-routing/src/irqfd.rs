//! Eventfds that signal GSIs, for devices in other threads and processes (vhost-user, VFIO). This
//! is `KVM_IRQFD` for an interrupt controller model in this process.
//!
//! An [`EventfdPoller`] waits for any number of eventfds, either in its own thread
//! ([`spawn`](EventfdPoller::spawn)) or in the VMM's event loop
//! ([`dispatch`](EventfdPoller::dispatch)). The poller's own file descriptor becomes readable when
//! an eventfd is signaled. An [`IrqfdSet`] binds eventfds to GSIs. Each bound eventfd is an
//! [`Irqfd`]; dropping it unbinds the eventfd. The route is looked up for each signal, so a changed
//! route applies from the next signal on.
//!
//! The caller passes each eventfd by value or in an `Arc`. Its descriptor is never duplicated.
//!
//! | | on a signal | at the end of the interrupt | when dropped |
//! |---|---|---|---|
//! | [`bind`](IrqfdSet::bind) | an edge: the message is sent, or the pin pulsed | – | – |
//! | [`bind_level`](IrqfdSet::bind_level) | the pin is raised and stays high | the pin is lowered, then the resample eventfd is signaled, so that the device can signal again | the pin is lowered |
//!
//! ```
//! use irq_routing::irqfd::{EventfdPoller, IrqfdSet};
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
//! let poller = EventfdPoller::new()?;
//! let irqfds = IrqfdSet::new(poller.clone(), router);
//! let device = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
//! let _bound = irqfds.bind(device.clone(), Gsi::new(5))?;
//!
//! rustix::io::write(&device, &1u64.to_ne_bytes())?; // the device's side
//! assert_eq!(poller.dispatch(None)?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub(crate) mod levels;
pub(crate) mod messages;
pub(crate) mod poller;
pub(crate) mod serving;

pub use messages::{MessageEventfd, MessageEventfdSet};
#[cfg(feature = "kvm")]
pub(crate) use poller::EventfdId;
pub use poller::{EventfdPoller, IrqfdError, IrqfdThread, PolledEventfd};

use crate::{Attachment, MessageSink, Router, Routing, Unsettled};
use alloc::sync::{Arc, Weak};
use core::fmt;
use core::time::Duration;
use levels::{LevelSource, Levels};
use msi_types::{Gsi, Line, LineObserver};
use poller::unblocking;
use rustix::fd::AsFd;

/// Eventfds bound to a router's GSIs.
///
/// A pin's level is driven under that pin's lock, so a blocking kick delays all of the pin's
/// sources. Code that the interrupt controller model calls, such as a kick, must not drop the
/// [`Irqfd`] whose signal is being served.
pub struct IrqfdSet {
    poller: Arc<EventfdPoller>,
    router: Arc<Router>,
    attachment: Attachment,
    levels: Levels,
}

impl IrqfdSet {
    /// Creates an empty set. `poller` serves the eventfds that are bound later.
    pub fn new(poller: Arc<EventfdPoller>, router: Arc<Router>) -> Arc<Self> {
        let attachment = router.attachments().attach("a set of eventfds".into());
        Arc::new(Self { poller, router, attachment, levels: Levels::default() })
    }

    /// Returns the set's membership in its router's [`attachments`](MessageSink::attachments).
    pub const fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Binds an eventfd to a GSI: each signal of `trigger` is an edge. A signal is lost if the GSI
    /// has no route at that time. Unserved signals merge into one edge. A signal that the eventfd
    /// already holds is served, too. An eventfd can be bound to one GSI only (`KVM_IRQFD` likewise
    /// returns `EBUSY` for an eventfd that is already bound).
    ///
    /// # Errors
    /// Returns an error under the same conditions as [`EventfdPoller::add`].
    pub fn bind(
        self: &Arc<Self>,
        trigger: impl AsFd + Send + Sync + 'static,
        gsi: Gsi,
    ) -> Result<Irqfd, IrqfdError> {
        let router = self.router.clone();
        let ring = move || {
            // If the GSI has no route, the signal is lost, as with `KVM_IRQFD`.
            let _ = router.signal(gsi);
        };
        let polled = self.poller.add(trigger, ring)?;
        Ok(Irqfd { _polled: polled, _asserted: None })
    }

    /// Binds an eventfd to a GSI's level: a signal of `trigger` raises the pin. When the
    /// [`observer`](Self::observer) learns that the interrupt has ended, it lowers the pin and
    /// signals `resample`. The device must then signal again if the cause of the interrupt
    /// persists. If the GSI is routed to a message, a signal sends it, as with
    /// [`bind`](Self::bind).
    ///
    /// After the interrupt controller has been restored, the monitor must call
    /// [`resample_all`](Self::resample_all).
    ///
    /// # Errors
    /// Returns an error under the same conditions as [`bind`](Self::bind), and
    /// [`IrqfdError::Blocking`] if `resample` is blocking.
    pub fn bind_level(
        self: &Arc<Self>,
        trigger: impl AsFd + Send + Sync + 'static,
        resample: impl AsFd + Send + Sync + 'static,
        gsi: Gsi,
    ) -> Result<Irqfd, IrqfdError> {
        unblocking(resample.as_fd())?;
        let source = LevelSource::new(gsi, resample);
        self.levels.add(&source);
        let (irqfds, signaled) = (self.clone(), source.clone());
        let ring = move || irqfds.levels.signal(&irqfds.router, &signaled);
        let polled = self.poller.add(trigger, ring)?;
        let asserted = Asserted { irqfds: self.clone(), source };
        Ok(Irqfd { _polled: polled, _asserted: Some(asserted) })
    }

    /// Serves every signal from before this call. See [`EventfdPoller::settle`], which this calls.
    ///
    /// # Errors
    /// Returns [`Unsettled`] if another thread is still serving a signal after `limit`.
    pub fn settle(&self, limit: Duration) -> Result<(), Unsettled> {
        self.poller.settle(limit)
    }

    /// Lowers the pins of all eventfds that are bound to levels, and signals each `resample`
    /// eventfd, so that each device signals again if the cause of its interrupt persists.
    ///
    /// This is for a restored machine: the saved state of an interrupt controller contains the
    /// level of a pin, but not the eventfd that raised it, so the pin would stay high when the
    /// interrupt ends. Other devices on such a pin must drive it again.
    pub fn resample_all(&self) {
        self.levels.resample_all(&self.router);
    }

    /// Returns the observer that [`bind_level`](Self::bind_level) depends on. The caller must
    /// register it with the interrupt controller model. The observer holds only a weak reference to
    /// the set.
    pub fn observer(self: &Arc<Self>) -> Arc<dyn LineObserver> {
        Arc::new(Observer(Arc::downgrade(self)))
    }
}

/// Observes ended interrupts. Holds the set weakly to avoid a reference cycle: the controller owns
/// the observer, and the router owns the controller.
struct Observer(Weak<IrqfdSet>);

impl LineObserver for Observer {
    fn deactivated(&self, line: Line) {
        if let Some(irqfds) = self.0.upgrade() {
            irqfds.levels.resample(&irqfds.router, line);
        }
    }
}

msi_types::debug_by!(IrqfdSet as "IrqfdSet", |it| {poller: it.poller});

/// A bound eventfd. Dropping it unbinds the eventfd: the drop waits for a signal that is being
/// served, later signals stay in the eventfd, and the pin is lowered if no other source asserts it.
#[derive(Debug)]
#[must_use = "dropping it ends the bind"]
#[doc(alias = "KVM_IRQFD")]
pub struct Irqfd {
    /// Polled eventfd. This field must be the first one, because polling has to end before the
    /// level is lowered.
    _polled: PolledEventfd,
    _asserted: Option<Asserted>,
}

/// Assertion of a pin by an eventfd that is bound to a level. Dropping it releases the pin.
struct Asserted {
    irqfds: Arc<IrqfdSet>,
    source: Arc<LevelSource>,
}

impl Drop for Asserted {
    fn drop(&mut self) {
        self.irqfds.levels.end(&self.irqfds.router, &self.source);
    }
}

impl fmt::Debug for Asserted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asserted")
    }
}
