//! Errors from binding eventfds.

use std::io;

/// Reason why an eventfd cannot be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IrqfdError {
    /// The eventfd is blocking: reading or signaling it could stall all other interrupts. The
    /// caller is at fault.
    #[error("the eventfd is blocking: create it with EFD_NONBLOCK")]
    Blocking,
    /// The eventfd is already bound. The caller is at fault.
    #[error("the eventfd is already bound: an eventfd can be bound only once")]
    AlreadyBound,
    /// A system call failed.
    #[error(transparent)]
    System(#[from] io::Error),
}
