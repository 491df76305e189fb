//! The interface to routes, implemented by KVM and by the router of this package.

use crate::{ChangeCount, Route, RouteError, RoutedMessage, SignalError};
use msi_types::{Delivery, Gsi};

/// A change of one GSI's route.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// The GSI has this route from now on.
    Set(Gsi, Route),
    /// The GSI has no route from now on.
    Clear(Gsi),
}

impl Change {
    /// Returns the GSI whose route changes.
    pub const fn gsi(self) -> Gsi {
        match self {
            Self::Set(gsi, _) | Self::Clear(gsi) => gsi,
        }
    }

    /// Returns the route after the change.
    pub const fn route(self) -> Option<Route> {
        match self {
            Self::Set(_, route) => Some(route),
            Self::Clear(_) => None,
        }
    }
}

/// A way for messages into the interrupt controller: [`Router`](crate::Router) for a model in this
/// process, `kvm::KvmRouter` for the kernel's.
pub trait MessageSink: Send + Sync {
    /// Sends a message without a GSI or a route: `KVM_SIGNAL_MSI`. Acquires no lock and does not
    /// allocate; KVM's implementation is one system call.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`SignalError::Refused`], with the kernel's error number.
    fn signal_msi(&self, message: RoutedMessage) -> Result<Delivery, SignalError>;
}

/// A keeper of routes: [`Router`](crate::Router) for a model in this process, `kvm::KvmRouter` for
/// the kernel's. Object safe; implementations lock inside.
pub trait Routing: MessageSink {
    /// Allocates the lowest free GSI. It has no route yet.
    ///
    /// # Errors
    /// [`RouteError::GsisExhausted`], with the limit.
    fn allocate(&self) -> Result<Gsi, RouteError>;

    /// Releases GSIs and clears their routes, as one change.
    ///
    /// # Errors
    /// [`RouteError::NotAllocated`] for one that is not given out, or named twice: no other has
    /// been released either.
    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError>;

    /// Makes all the changes, in their order, or none. Redundant changes are skipped. A concurrent
    /// signal takes the old route, the new one, or one of the same GSI between them, each whole. A
    /// later signal takes the new one. A GSI that is given a route counts as allocated. The first
    /// commit sets a table: from then on, no GSI is the pin of its number.
    ///
    /// # Errors
    /// One of the GSIs does not exist; or the host refuses.
    fn commit(&self, changes: &[Change]) -> Result<ChangeCount, RouteError>;

    /// Signals a GSI as an edge: sends its message, or pulses its pin. Senders of one GSI do not
    /// swallow each other's edges. A pin that the guest made level-sensitive ignores an edge
    /// ([`SetLine::pulse`](msi_types::SetLine::pulse)).
    ///
    /// # Errors
    /// [`SignalError::Unrouted`].
    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError>;
}
