//! Errors of binding eventfds.

use rustix::io::Errno;
use std::io;

/// Reason for which an eventfd cannot be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IrqfdError {
    /// Reading or signalling the eventfd could block all other interrupts. The caller's mistake.
    #[error("the eventfd blocks its users: make it with EFD_NONBLOCK")]
    Blocking,
    /// The eventfd is bound to a GSI already. The caller's mistake.
    #[error("the eventfd is bound already: an eventfd rings one GSI")]
    AlreadyBound,
    /// The operating system refused.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Errno> for IrqfdError {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}
