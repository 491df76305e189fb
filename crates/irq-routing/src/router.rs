//! The router for an interrupt controller model in this process. Look-ups take no lock, and each
//! one observes a route change either entirely or not at all.

use crate::gsis::Gsis;
use crate::lock::Mutex;
use crate::table::Table;
use crate::{
    Attachments, Change, ChangeCount, Inputs, Invalidation, IrqLine, IrqLineError, Pin, Route,
    RouteError, RoutedMessage,
};
use crate::{MessageSink, Routing, SignalError};
use alloc::vec;
use alloc::vec::Vec;
use msi_types::explain::Explanation;
use msi_types::{Delivery, Gsi, Level};

/// Number of GSIs, and the range from which they are allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GsiSpace {
    /// Number of GSIs; all GSIs are less than this. KVM typically supports 4096 GSIs, and reports
    /// the number through `KVM_CAP_IRQ_ROUTING`.
    pub(crate) limit: u32,
    /// First GSI that [`Routing::allocate`] returns. The VMM itself assigns the GSIs below it.
    pub(crate) first_allocated: u32,
}

impl Default for GsiSpace {
    /// Returns a space of 4096 GSIs, KVM's usual number. [`Routing::allocate`] does not return GSIs
    /// that equal a pin's number.
    fn default() -> Self {
        Self::new(4096)
    }
}

/// Error for a limit that is greater than [`GsiSpace::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} GSIs are too many: the maximum is {max}", max = GsiSpace::MAX)]
pub struct TooManyGsis(pub u32);

impl GsiSpace {
    /// Highest limit. This is enough for a GSI for every message of an ITS with 20-bit EventIDs.
    pub const MAX: u32 = 1 << 20;

    /// Creates a space of GSIs below `limit`. [`Routing::allocate`] does not return GSIs that equal
    /// a pin's number.
    pub const fn new(limit: u32) -> Self {
        Self { limit, first_allocated: Pin::COUNT }
    }

    /// Sets the first GSI that [`Routing::allocate`] may return.
    #[must_use]
    pub const fn with_first_allocated(self, first_allocated: u32) -> Self {
        Self { first_allocated, ..self }
    }
}

/// A set of GSIs that are routed to the inputs of an interrupt controller model.
///
/// Looking up a signal's route ([`signal`](Routing::signal), [`set_level`](Self::set_level)) takes
/// no lock and allocates nothing, and the cost of a change does not depend on the size of the
/// table. Until the first table is set, each GSI is routed to the pin with the same number.
///
/// The [crate's example](crate#example) routes a pin and a message.
#[doc(alias = "kvm_irq_routing_table")]
#[doc(alias = "KVM_SET_GSI_ROUTING")]
pub struct Router {
    table: Table,
    /// Allocated GSIs. The lock is also held during route changes.
    gsis: Mutex<Gsis>,
    inputs: Inputs,
    attachments: Attachments,
}

impl Router {
    /// Creates a router without a table and without allocated GSIs.
    ///
    /// # Errors
    /// Returns [`TooManyGsis`] if the space's limit is greater than [`GsiSpace::MAX`].
    pub fn new(space: GsiSpace, inputs: Inputs) -> Result<Self, TooManyGsis> {
        if space.limit > GsiSpace::MAX {
            return Err(TooManyGsis(space.limit));
        }
        let gsis = Mutex::new(Gsis::new(space.first_allocated..space.limit));
        let (table, inputs) = (Table::new(space.limit, Pin::COUNT), inputs.translated());
        Ok(Self { table, gsis, inputs, attachments: Attachments::default() })
    }

    /// Replaces the whole table, like `KVM_SET_GSI_ROUTING`: GSIs that are missing from `routes`
    /// lose their routes. The new table is validated before any route changes. Routes then change
    /// one by one, so a concurrent signal may see new routes for some GSIs and old ones for others.
    ///
    /// # Errors
    /// Returns an error if a GSI does not exist or has two routes.
    pub fn replace(&self, routes: &[(Gsi, Route)]) -> Result<ChangeCount, RouteError> {
        let mut named = vec![false; self.table.gsis() as usize];
        for (gsi, _) in routes {
            self.check_gsi(*gsi)?;
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

    /// Returns the number of messages that the IOMMU has blocked ([`Inputs::with_translator`]).
    pub fn dropped(&self) -> u64 {
        self.inputs.translations.as_ref().map_or(0, |translations| translations.dropped())
    }

    fn check_gsi(&self, gsi: Gsi) -> Result<(), RouteError> {
        let limit = self.table.gsis();
        if gsi.get() < limit { Ok(()) } else { Err(RouteError::NoSuchGsi { gsi, limit }) }
    }

    /// Returns the route of a GSI.
    ///
    /// Context: any.
    pub fn route(&self, gsi: Gsi) -> Option<Route> {
        self.table.route(gsi)
    }

    /// Returns the table's routes in GSI order, or none if no table was set yet. If a route changes
    /// concurrently, the result contains either the old or the new route.
    pub fn routes(&self) -> Vec<(Gsi, Route)> {
        self.table.routed().collect()
    }

    /// Explains why signaling a GSI does not interrupt a CPU. Looks up the GSI's route, and appends
    /// the controller's explanation of the message or pin ([`Inputs::with_explainer`]). Does not
    /// change the route, which may change concurrently.
    pub fn explain(&self, gsi: Gsi) -> Explanation {
        self.inputs.explainer.explain_route(gsi, self.table.route(gsi))
    }

    /// Drives the level of a GSI's pin. If the GSI is routed to a message, the message is sent when
    /// `level` is high. A message has no level to lower, so a low level then sends nothing and
    /// returns [`Delivery::Blocked`], as KVM ignores it.
    ///
    /// # Errors
    /// Returns an error if the GSI has no route.
    pub fn set_level(&self, gsi: Gsi, level: Level) -> Result<Delivery, SignalError> {
        match self.table.route(gsi).ok_or(SignalError::Unrouted(gsi))? {
            Route::Pin(pin) => Ok(self.inputs.set_line(pin.line(), level)),
            Route::Message(message) if level == Level::High => Ok(self.inputs.send(message)),
            Route::Message(_) => Ok(Delivery::Blocked),
        }
    }

    /// Drives the level of a pin. The caller has already looked up the GSI's route.
    #[cfg(all(feature = "std", target_os = "linux"))]
    pub(crate) fn drive(&self, pin: Pin, level: Level) -> Delivery {
        self.inputs.set_line(pin.line(), level)
    }

    /// Drives an input by its number for `KVM_IRQ_LINE`, which is not a GSI (see [`IrqLine`]).
    ///
    /// # Errors
    /// Returns an error if the number does not name an input of the interrupt controller.
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

    fn explain_message(&self, message: RoutedMessage) -> Explanation {
        self.inputs.explainer.explain_message(message)
    }

    fn attachments(&self) -> Attachments {
        self.attachments.clone()
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
        changes.iter().try_for_each(|change| self.check_gsi(change.gsi()))?;
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

    fn invalidate(&self, invalidation: &Invalidation) -> Result<(), RouteError> {
        if let Some(translations) = &self.inputs.translations {
            translations.invalidate(invalidation);
        }
        Ok(())
    }

    #[inline]
    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError> {
        match self.table.route(gsi).ok_or(SignalError::Unrouted(gsi))? {
            Route::Message(message) => Ok(self.inputs.send(message)),
            Route::Pin(pin) => Ok(self.inputs.pulse(pin.line())),
        }
    }
}

msi_types::debug_by!(Router as "Router", |it| {limit: it.table.gsis(), inputs: it.inputs});
