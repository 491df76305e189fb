//! Errors of the guest's end.

use crate::channel::ChannelError;
use crate::protocol::{ProtocolError, Slot, Status};
use msi_types::{ControllerFault, MsiError};

/// Reason for which an operation of the bus failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VpciError {
    /// The caller must not wait here: compose and delete in task context.
    #[error("{0}: asks the host, and the caller must not wait")]
    NotInTask(&'static str),
    /// The host did not answer in time.
    #[error("{0}: the host did not answer in time")]
    Silent(&'static str),
    /// The host refused.
    #[error("{operation}: the host refused with status {status}")]
    Refused {
        /// The request.
        operation: &'static str,
        /// The host's status.
        status: Status,
    },
    /// The host's answer cannot be used.
    #[error("{operation}: the host's answer is of no use: {reason}")]
    BadAnswer {
        /// The request.
        operation: &'static str,
        /// The fault in it.
        reason: &'static str,
    },
    /// A message cannot be emitted or parsed.
    #[error("{operation}: {error}")]
    Protocol {
        /// The request.
        operation: &'static str,
        /// The field that is wrong.
        error: ProtocolError,
    },
    /// The channel failed: the bus is of no more use.
    #[error("{operation}: {error}")]
    Channel {
        /// The request.
        operation: &'static str,
        /// The failure.
        error: ChannelError,
    },
    /// The host speaks none of the versions that this crate speaks.
    #[error("the host speaks none of protocol 1.1 to 1.4")]
    NoVersion,
    /// The function was removed, or never was there.
    #[error("no function is in slot {0}")]
    NoFunction(Slot),
    /// As many requests as can be kept account of are unanswered.
    #[error("{0}: too many requests are unanswered")]
    TooManyUnanswered(&'static str),
    /// The bus was closed.
    #[error("the bus is closed")]
    Closed,
    /// The bus was suspended.
    #[error("the bus is suspended")]
    Suspended,
    /// The caller tried to resume a bus that is not suspended.
    #[error("the bus is not suspended")]
    NotSuspended,
    /// A message could not be created again.
    #[error("a message was not created again: {0}")]
    NotRecreated(MsiError),
    /// The kernel's heap is exhausted.
    #[error("no memory for the bus")]
    NoMemory,
}

impl VpciError {
    const fn operation(&self) -> &'static str {
        match self {
            Self::NotInTask(operation)
            | Self::Silent(operation)
            | Self::TooManyUnanswered(operation)
            | Self::Refused { operation, .. }
            | Self::BadAnswer { operation, .. }
            | Self::Protocol { operation, .. }
            | Self::Channel { operation, .. } => operation,
            Self::NoVersion => "query version",
            Self::NotRecreated(_) | Self::NotSuspended => "resume",
            Self::NoFunction(_) | Self::Closed | Self::Suspended | Self::NoMemory => "request",
        }
    }

    const fn reason(&self) -> &'static str {
        match self {
            Self::NotInTask(_) => "the caller must not wait",
            Self::Silent(_) => "the host did not answer in time",
            Self::Refused { .. } => "the host refused",
            Self::BadAnswer { reason, .. } => reason,
            Self::Protocol { .. } => "a message is malformed",
            Self::Channel { .. } => "the channel failed",
            Self::NoVersion => "no version in common",
            Self::NoFunction(_) => "the function is gone",
            Self::TooManyUnanswered(_) => "too many requests are unanswered",
            Self::Closed => "the bus is closed",
            Self::Suspended => "the bus is suspended",
            Self::NotSuspended => "the bus is not suspended",
            Self::NotRecreated(_) => "a message was not created again",
            Self::NoMemory => "no memory",
        }
    }

    /// The error as the bus's functions see it. `window` tells the buses apart.
    pub(super) fn as_msi_error(&self, window: u64) -> MsiError {
        MsiError::Controller(ControllerFault {
            kind: "hyperv-vpci",
            base: window,
            operation: self.operation(),
            device: None,
            event: None,
            reason: self.reason(),
        })
    }
}
