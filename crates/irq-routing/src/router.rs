//! Routes of an interrupt controller model in this process. Look-ups take no lock; a change of a
//! route is seen whole or not at all.

use crate::gsis::Gsis;
use crate::lock::Mutex;
use crate::table::Table;
use crate::{
    Change, ChangeCount, Inputs, IrqLine, IrqLineError, Pin, Route, RouteError, RoutedMessage,
};
use crate::{MessageSink, Routing, SignalError};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use msi_types::{Delivery, Gsi, Level};

/// Number of GSIs, and the range that is allocated from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GsiSpace {
    /// All GSIs lie below this. KVM's are 4096 (`KVM_CAP_IRQ_ROUTING` says it).
    pub limit: u32,
    /// GSIs below this are the monitor's own to number; [`Routing::allocate`] gives those from it
    /// on.
    pub first_allocated: u32,
}

impl Default for GsiSpace {
    /// Returns as many as KVM has; the numbers of pins are not allocated from.
    fn default() -> Self {
        Self::new(4096)
    }
}

/// A limit above [`GsiSpace::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} GSIs are more than the {max} that there can be", max = GsiSpace::MAX)]
pub struct TooManyGsis(pub u32);

impl GsiSpace {
    /// The highest limit: every message of an ITS with 20 bits of EventIDs has room.
    pub const MAX: u32 = 1 << 20;

    /// GSIs below `limit`; the numbers of pins are not allocated from.
    pub const fn new(limit: u32) -> Self {
        Self { limit, first_allocated: Pin::COUNT }
    }

    /// With this [`first_allocated`](Self::first_allocated).
    #[must_use]
    pub const fn with_first_allocated(self, first_allocated: u32) -> Self {
        Self { first_allocated, ..self }
    }
}

/// GSIs and their routes, over a model of an interrupt controller.
///
/// A signal's look-up ([`signal`](Routing::signal), [`set_level`](Self::set_level)) takes no lock
/// and allocates nothing; a change costs the same in tables of every size. Before the first table
/// is set, each GSI is the pin of its number.
#[doc(alias = "kvm_irq_routing_table")]
pub struct Router {
    table: Table,
    /// Held during changes of routes, too.
    gsis: Mutex<Gsis>,
    inputs: Inputs,
}

impl Router {
    /// Creates a router without routes or allocated GSIs.
    ///
    /// # Errors
    /// The space is larger than [`GsiSpace::MAX`].
    pub fn new(space: GsiSpace, inputs: Inputs) -> Result<Self, TooManyGsis> {
        if space.limit > GsiSpace::MAX {
            return Err(TooManyGsis(space.limit));
        }
        let gsis = Mutex::new(Gsis::new(space.first_allocated, space.limit));
        Ok(Self { table: Table::new(space.limit, Pin::COUNT), gsis, inputs })
    }

    /// Replaces the whole table, as `KVM_SET_GSI_ROUTING` does: a GSI that is not in `routes` has
    /// no route. All of it is checked before anything changes. Each GSI then changes by itself, and
    /// only if its route differs.
    ///
    /// # Errors
    /// A GSI does not exist, or has two routes.
    pub fn replace(&self, routes: &[(Gsi, Route)]) -> Result<ChangeCount, RouteError> {
        let mut named = vec![false; self.table.gsis() as usize];
        for (gsi, _) in routes {
            self.judge(*gsi)?;
            if named.get_mut(gsi.index()).is_none_or(|named| core::mem::replace(named, true)) {
                return Err(RouteError::DuplicateGsi(*gsi));
            }
        }
        let mut gsis = self.gsis.lock();
        let absent = self.table.routed().map(|(gsi, _)| gsi);
        let absent: Vec<_> =
            absent.filter(|gsi| !named.get(gsi.index()).is_some_and(|named| *named)).collect();
        for (gsi, _) in routes {
            gsis.take(*gsi);
        }
        let set = routes.iter().map(|(gsi, route)| (*gsi, Some(*route)));
        Ok(self.table.set_table(set.chain(absent.into_iter().map(|gsi| (gsi, None)))))
    }

    fn judge(&self, gsi: Gsi) -> Result<(), RouteError> {
        let limit = self.table.gsis();
        if gsi.get() < limit { Ok(()) } else { Err(RouteError::NoSuchGsi { gsi, limit }) }
    }

    /// Returns the route of a GSI.
    ///
    /// Context: any.
    pub fn route(&self, gsi: Gsi) -> Option<Route> {
        self.table.route(gsi)
    }

    /// Returns all routes of the table, by GSI; none while each GSI is the pin of its number. A
    /// route that changes meanwhile is the old or the new one.
    pub fn routes(&self) -> Vec<(Gsi, Route)> {
        self.table.routed().collect()
    }

    /// Drives the level of a GSI's pin. A GSI with a message sends it when the level becomes high.
    ///
    /// # Errors
    /// The GSI has no route, or leads to a message, which cannot be taken back by a low level.
    pub fn set_level(&self, gsi: Gsi, level: Level) -> Result<Delivery, SignalError> {
        match self.table.route(gsi).ok_or(SignalError::Unrouted(gsi))? {
            Route::Pin(pin) => Ok(self.inputs.set_line(pin.line(), level)),
            Route::Message(message) if level == Level::High => Ok(self.inputs.send(message)),
            Route::Message(_) => Err(SignalError::Message(gsi)),
        }
    }

    /// Drives a pin that has been looked up.
    #[cfg(all(feature = "std", target_os = "linux"))]
    pub(crate) fn drive(&self, pin: Pin, level: Level) -> Delivery {
        self.inputs.set_line(pin.line(), level)
    }

    /// Drives an input by the number that `KVM_IRQ_LINE` has for it, which is no GSI.
    ///
    /// # Errors
    /// The number names no input of the interrupt controller.
    pub fn irq_line(&self, number: u32, level: Level) -> Result<Delivery, IrqLineError> {
        match IrqLine::decode(number)? {
            IrqLine::Line(line) => Ok(self.inputs.set_line(line, level)),
            IrqLine::CpuInput { cpu, .. } => Err(IrqLineError::DrivenByController(cpu)),
        }
    }
}

impl MessageSink for Router {
    /// Never fails.
    #[inline]
    fn signal_msi(&self, message: RoutedMessage) -> Result<Delivery, SignalError> {
        Ok(self.inputs.send(message))
    }
}

impl Routing for Router {
    fn allocate(&self) -> Result<Gsi, RouteError> {
        self.gsis.lock().allocate()
    }

    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError> {
        let mut given = self.gsis.lock();
        given.release_all(gsis)?;
        self.table.set(gsis.iter().map(|gsi| (*gsi, None)));
        Ok(())
    }

    fn commit(&self, changes: &[Change]) -> Result<ChangeCount, RouteError> {
        changes.iter().try_for_each(|change| self.judge(change.gsi()))?;
        if changes.is_empty() {
            return Ok(ChangeCount::default());
        }
        let mut gsis = self.gsis.lock();
        changes
            .iter()
            .filter(|change| change.route().is_some())
            .for_each(|change| gsis.take(change.gsi()));
        Ok(self.table.set_table(changes.iter().map(|change| (change.gsi(), change.route()))))
    }

    #[inline]
    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError> {
        match self.table.route(gsi).ok_or(SignalError::Unrouted(gsi))? {
            Route::Message(message) => Ok(self.inputs.send(message)),
            Route::Pin(pin) => Ok(self.inputs.pulse(pin.line())),
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("limit", &self.table.gsis())
            .field("inputs", &self.inputs)
            .finish_non_exhaustive()
    }
}
