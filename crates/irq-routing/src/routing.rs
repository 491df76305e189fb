//! The interface to routes, implemented by KVM and by the router of this package.

use crate::{Changes, Route, RouteError, SignalError};
use msi_types::{Delivery, Gsi};

/// A change of one GSI's route.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// It leads there from now on.
    Set(Gsi, Route),
    /// It leads nowhere.
    Clear(Gsi),
}

impl Change {
    /// Returns the GSI whose route changes.
    pub const fn gsi(self) -> Gsi {
        match self {
            Self::Set(gsi, _) | Self::Clear(gsi) => gsi,
        }
    }

    /// The route after it.
    pub const fn route(self) -> Option<Route> {
        match self {
            Self::Set(_, route) => Some(route),
            Self::Clear(_) => None,
        }
    }
}

/// Keeps routes: [`Router`](crate::Router) for a model in this process, `kvm::KvmRouter` for the kernel's. Object
/// safe; locks inside.
pub trait Routing: Send + Sync {
    /// Gives out a GSI that nobody uses: the lowest. It has no route yet.
    ///
    /// # Errors
    /// [`RouteError::GsisExhausted`], with the limit.
    fn allocate(&self) -> Result<Gsi, RouteError>;

    /// Takes GSIs back, and their routes with them, as one change.
    ///
    /// # Errors
    /// [`RouteError::NotAllocated`] for one that is not given out, or named twice: no other has been released either.
    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError>;

    /// Makes all the changes, in their order, or none. Changes that change nothing are skipped. A signal that comes
    /// meanwhile takes the old route or the new one, whole, or what another change of the same GSI is between them; one
    /// that comes afterwards takes the new one. A GSI that is given a route counts as allocated. The first change sets
    /// a table: from then on no GSI is a pin because of its number.
    ///
    /// # Errors
    /// One of the GSIs does not exist; or the host refuses.
    fn commit(&self, changes: &[Change]) -> Result<Changes, RouteError>;

    /// Fires a GSI as an edge: sends its message, or pulses its pin. Of several senders of one
    /// GSI none swallows the edge of another. A pin that the guest made level-sensitive hears
    /// nothing of an edge ([`SetLine::pulse`](msi_types::SetLine::pulse)).
    ///
    /// # Errors
    /// [`SignalError::Unrouted`].
    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError>;
}
