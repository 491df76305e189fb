//! Eventfds that signal GSIs, for devices in other threads and processes (vhost-user, VFIO). This
//! is the kernel's `KVM_IRQFD`, over a model in this process.
//!
//! An [`EventfdPoller`] waits for any number of eventfds, in a thread of its own
//! ([`spawn`](EventfdPoller::spawn)) or in the monitor's event loop
//! ([`dispatch`](EventfdPoller::dispatch)). The object itself becomes readable when an eventfd is
//! signalled. [`IrqfdSet`] binds eventfds to GSIs. An [`Irqfd`] is one bound eventfd; dropping it
//! ends the bind. Routes are looked up at each signal, so that a changed route counts for the next
//! signal.
//!
//! An eventfd is held as it is given, by value or in an `Arc`: none is duplicated.
//!
//! | | signalled | end of interrupt | dropped |
//! |---|---|---|---|
//! | [`bind`](IrqfdSet::bind) | an edge: the message is sent, or the pin pulsed | – | – |
//! | [`bind_level`](IrqfdSet::bind_level) | the pin stays high | the pin is lowered, then the other eventfd signalled, so that the device can signal again | the pin is lowered |
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

pub(crate) mod error;
mod levels;
pub(crate) mod messages;
mod poller;
pub(crate) mod serving;

pub use error::IrqfdError;
pub use messages::{MessageEventfd, MessageEventfdSet};
#[cfg(feature = "kvm")]
pub(crate) use poller::EventfdId;
pub use poller::{EventfdPoller, IrqfdThread, PolledEventfd};

use crate::{Router, Routing};
use alloc::sync::{Arc, Weak};
use core::fmt;
use levels::{LevelSource, Levels};
use msi_types::{Gsi, Line, LineObserver};
use poller::unblocking;
use rustix::fd::AsFd;

/// Eventfds bound to the GSIs of a router.
///
/// A pin's level is driven under that pin's lock. A kick that blocks therefore delays other levels
/// of the same pin, too. Code that the interrupt controller model calls, such as a kick, must not
/// end the bind that it is called for.
pub struct IrqfdSet {
    poller: Arc<EventfdPoller>,
    router: Arc<Router>,
    levels: Levels,
}

impl IrqfdSet {
    /// Creates an object without bound eventfds, whose signals `poller` serves.
    pub fn new(poller: Arc<EventfdPoller>, router: Arc<Router>) -> Arc<Self> {
        Arc::new(Self { poller, router, levels: Levels::default() })
    }

    /// Binds an eventfd to a GSI: each signal of `trigger` is an edge, routed or not. Signals that
    /// are not served yet merge into one, and one from before the bind counts. An eventfd can be
    /// bound to one GSI, as with `KVM_IRQFD`, which answers `EBUSY` to a second one.
    ///
    /// # Errors
    /// As [`EventfdPoller::add`].
    pub fn bind(
        self: &Arc<Self>,
        trigger: impl AsFd + Send + Sync + 'static,
        gsi: Gsi,
    ) -> Result<Irqfd, IrqfdError> {
        let router = self.router.clone();
        let ring = move || {
            // A signal without a route is lost, as in the kernel.
            let _ = router.signal(gsi);
        };
        let polled = self.poller.add(trigger, ring)?;
        Ok(Irqfd { _polled: polled, _asserted: None })
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
        trigger: impl AsFd + Send + Sync + 'static,
        resample: impl AsFd + Send + Sync + 'static,
        gsi: Gsi,
    ) -> Result<Irqfd, IrqfdError> {
        unblocking(resample.as_fd())?;
        let source = LevelSource::new(gsi, resample);
        let (irqfds, signalled) = (self.clone(), source.clone());
        let ring = move || irqfds.levels.signal(&irqfds.router, &signalled);
        let polled = self.poller.add(trigger, ring)?;
        let asserted = Asserted { irqfds: self.clone(), source };
        Ok(Irqfd { _polled: polled, _asserted: Some(asserted) })
    }

    /// Returns the observer of ended interrupts for [`bind_level`](Self::bind_level), to be given
    /// to the interrupt controller model. It keeps nothing alive.
    pub fn observer(self: &Arc<Self>) -> Arc<dyn LineObserver> {
        Arc::new(Observer(Arc::downgrade(self)))
    }
}

/// Observer of ended interrupts. Holds a weak reference: the controller keeps it, and the routes
/// keep the controller.
struct Observer(Weak<IrqfdSet>);

impl LineObserver for Observer {
    fn deactivated(&self, line: Line) {
        if let Some(irqfds) = self.0.upgrade() {
            irqfds.levels.resample(&irqfds.router, line);
        }
    }
}

impl fmt::Debug for IrqfdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqfdSet").field("poller", &self.poller).finish_non_exhaustive()
    }
}

/// A bound eventfd. Dropping it ends the bind. A signal that is being served is completed, later
/// ones stay in the eventfd, and a pin that it alone held high is lowered.
#[derive(Debug)]
#[must_use = "dropping it ends the bind"]
pub struct Irqfd {
    /// Ends before the level is lowered.
    _polled: PolledEventfd,
    _asserted: Option<Asserted>,
}

/// The inputs that a bound level asserts.
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
