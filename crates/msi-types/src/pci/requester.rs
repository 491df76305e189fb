//! The identity of a PCI function as the sender of messages.

use crate::RequesterId;

/// A PCI function as the sender of messages.
///
/// Functions behind a bridge to conventional PCI do not use their own requester IDs: the bridge
/// sends on their behalf, with an alias that all of them share (PCI Express to PCI/PCI-X Bridge 1.0
/// §2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PciRequester {
    /// Bus, device and function number of the function itself.
    pub function: RequesterId,
    /// Requester ID of the function's messages at the host bridge, if a bridge replaces the
    /// function's own.
    pub alias: Option<RequesterId>,
}

impl PciRequester {
    /// Creates the identity of a function whose messages carry its own requester ID.
    pub const fn new(function: RequesterId) -> Self {
        Self { function, alias: None }
    }

    /// Replaces the alias.
    #[must_use]
    pub const fn with_alias(self, alias: Option<RequesterId>) -> Self {
        Self { alias, ..self }
    }

    /// Returns the requester ID of the function's messages at the host bridge.
    pub const fn at_host(self) -> RequesterId {
        match self.alias {
            Some(alias) => alias,
            None => self.function,
        }
    }
}

impl From<RequesterId> for PciRequester {
    fn from(function: RequesterId) -> Self {
        Self::new(function)
    }
}
