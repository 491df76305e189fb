//! Traits for changing routes and sending messages, implemented by [`Router`](crate::Router) and by
//! `kvm::KvmRouter`, and the parts of a machine that signal through them.

use crate::lock::Mutex;
use crate::{ChangeCount, Invalidation, Route, RouteError, RoutedMessage, SignalError};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use msi_types::explain::Explanation;
use msi_types::{Delivery, Gsi};

/// A change to one GSI's route.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// Sets the route of the GSI.
    Set(Gsi, Route),
    /// Removes the route of the GSI.
    Clear(Gsi),
}

impl Change {
    /// Returns the GSI whose route changes.
    pub const fn gsi(self) -> Gsi {
        match self {
            Self::Set(gsi, _) | Self::Clear(gsi) => gsi,
        }
    }

    /// Returns the GSI's route after the change.
    pub const fn route(self) -> Option<Route> {
        match self {
            Self::Set(_, route) => Some(route),
            Self::Clear(_) => None,
        }
    }
}

/// Delivers messages to an interrupt controller: [`Router`](crate::Router) to a model in this
/// process, `kvm::KvmRouter` to the kernel's controller.
pub trait MessageSink: Send + Sync {
    /// Sends a message without a GSI or a route, like `KVM_SIGNAL_MSI`. Implementations must not
    /// acquire a lock or allocate; KVM's makes one system call.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// Returns [`SignalError::Refused`] with the kernel's error number if the kernel refuses the
    /// message.
    fn signal_msi(&self, message: RoutedMessage) -> Result<Delivery, SignalError>;

    /// Explains what stops a message, starting at its doorbell, without sending it. A sink that
    /// cannot read its controller's state returns an empty explanation, as does the provided
    /// method.
    fn explain_message(&self, _message: RoutedMessage) -> Explanation {
        Explanation::new()
    }

    /// Returns the parts of the machine that send through this sink. The provided method returns
    /// none, so a save does not notice that one of them is left out.
    fn attachments(&self) -> Attachments {
        Attachments::default()
    }
}

/// A routing table for GSIs: [`Router`](crate::Router) for a model in this process,
/// `kvm::KvmRouter` for the kernel's controller. The trait is dyn-compatible, and implementations
/// synchronize internally.
pub trait Routing: MessageSink {
    /// Allocates the lowest free GSI. The GSI has no route yet.
    ///
    /// # Errors
    /// Returns [`RouteError::GsisExhausted`] if no GSI is free.
    fn allocate(&self) -> Result<Gsi, RouteError>;

    /// Releases GSIs and removes their routes, in a single change.
    ///
    /// # Errors
    /// Returns [`RouteError::NotAllocated`] if a GSI is not allocated or is listed twice. In that
    /// case, no GSI is released.
    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError>;

    /// Makes all the changes in order, or none of them. Skips redundant ones. If a GSI is listed
    /// several times, a concurrent signal may use the GSI's old route, its new route or an
    /// intermediate one, but never a mixture. Later signals use the new route. A GSI whose route is
    /// set counts as allocated. The first commit sets the first table, so GSIs are no longer routed
    /// to the pins with the same numbers.
    ///
    /// # Errors
    /// Returns an error if one of the GSIs does not exist or the host refuses the changes.
    fn commit(&self, changes: &[Change]) -> Result<ChangeCount, RouteError>;

    /// Invalidates translations for the guest. Does nothing if no IOMMU translates messages.
    ///
    /// The emulation of the IOMMU must call this method after the guest has changed its tables, and
    /// before it completes the command that awaits the invalidation (`CMD_SYNC` of an SMMU). On
    /// return, no message uses an older translation. This method waits for messages that are being
    /// sent, so callers must not hold a lock that a doorbell, a kick or
    /// [`TranslateMsi::translate`](crate::TranslateMsi::translate) takes, and must not call it from
    /// these. A kick must not wait for the vCPU that calls it. After the IOMMU was restored,
    /// invalidate all translations.
    ///
    /// For one device, this translates at most 4 addresses; otherwise, at most those that the
    /// invalidation concerns among 1024. It then waits for messages that are being sent, but not
    /// for later ones. KVM's router also looks at each route, and at each vector of its sets of
    /// eventfds, translates those that the invalidation concerns, and sets one table if a route has
    /// changed.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns [`RouteError::Refused`] if the kernel refuses the new routes. Old translations may
    /// then remain in use, so the guest's command must not complete.
    fn invalidate(&self, invalidation: &Invalidation) -> Result<(), RouteError>;

    /// Signals an edge on a GSI: sends its message or pulses its pin. Concurrent senders don't
    /// cancel each other's edges. If the guest configured the pin as level-sensitive, the interrupt
    /// controller ignores the edge (see [`SetLine::pulse`](msi_types::SetLine::pulse)).
    ///
    /// # Errors
    /// Returns [`SignalError::Unrouted`] if the GSI has no route, or [`SignalError::Refused`] if
    /// the host refuses the interrupt.
    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError>;
}

/// Names of the parts that signal through a router.
#[derive(Clone, Default)]
pub struct Attachments(Arc<Mutex<Vec<Weak<String>>>>);

msi_types::debug_by!(Attachments as "Attachments", |it| {});

impl Attachments {
    /// Adds a part for as long as the returned value exists.
    pub(crate) fn attach(&self, name: String) -> Attachment {
        let name = Arc::new(name);
        let mut names = self.0.lock();
        names.retain(|name| name.strong_count() > 0);
        names.push(Arc::downgrade(&name));
        drop(names);
        Attachment { name, all: self.clone() }
    }

    /// Returns the name of a part that is attached, but not in `parts`.
    pub fn missing(&self, parts: &[&Attachment]) -> Option<String> {
        let names = self.0.lock();
        let is_missing = |name: &Arc<String>| !parts.iter().any(|one| Arc::ptr_eq(&one.name, name));
        names.iter().filter_map(Weak::upgrade).find(is_missing).map(|name| (*name).clone())
    }
}

/// Membership of a part in [`Attachments`].
#[derive(Debug)]
pub struct Attachment {
    pub(crate) name: Arc<String>,
    pub(crate) all: Attachments,
}

impl Attachment {
    /// Returns all parts that signal through the same router.
    pub const fn all(&self) -> &Attachments {
        &self.all
    }
}
