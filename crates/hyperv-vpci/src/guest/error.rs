//! Errors on the guest's end.

use crate::channel::ChannelError;
use crate::protocol::{ProtocolError, Slot, Status};
use msi_types::{ControllerFault, MsiError};

/// Counters of faults by the host and the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Faults {
    /// Messages that are malformed or unknown.
    pub malformed: u32,
    /// Answers to unknown, abandoned or already answered requests, and notices about nonexistent
    /// functions.
    pub unexpected: u32,
    /// Late answers to abandoned message requests. If such an answer grants a message, it is
    /// returned to the host.
    pub late: u32,
    /// Packets of unknown types, with unknown flags, or longer than any message, which were
    /// skipped.
    pub skipped: u32,
    /// Unmasks on x86 for which the hypervisor refused the hypercall. The vectors were unmasked
    /// with their previous targets.
    pub refused_unmasks: u32,
}

/// Reason why a bus operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VpciError {
    /// The caller's context must not wait. The operation must be called in a task.
    #[error("{0}: this operation waits for the host and must be called in task context")]
    NotInTask(&'static str),
    /// The host did not answer in time.
    #[error("{0}: the host did not answer in time")]
    Silent(&'static str),
    /// The host refused the request.
    #[error("{operation}: the host refused with status {status}")]
    Refused {
        /// The request.
        operation: &'static str,
        /// The host's status.
        status: Status,
    },
    /// The host's answer cannot be used.
    #[error("{operation}: the host's answer cannot be used: {reason}")]
    BadAnswer {
        /// The request.
        operation: &'static str,
        /// Defect of the answer.
        reason: &'static str,
    },
    /// A message cannot be emitted or parsed.
    #[error("{operation}: {error}")]
    Protocol {
        /// The request.
        operation: &'static str,
        /// Error of the message.
        error: ProtocolError,
    },
    /// The channel failed, so the bus can no longer be used.
    #[error("{operation}: {error}")]
    Channel {
        /// The request.
        operation: &'static str,
        /// The failure.
        error: ChannelError,
    },
    /// The host supports none of the protocol versions that this crate supports.
    #[error("the host supports none of the protocol versions 1.2 to 1.4")]
    NoVersion,
    /// The function was removed or never existed.
    #[error("slot {0} has no function")]
    NoFunction(Slot),
    /// Too many requests are unanswered.
    #[error("{0}: too many requests are unanswered")]
    TooManyUnanswered(&'static str),
    /// The bus was closed.
    #[error("the bus is closed")]
    Closed,
    /// The bus was suspended.
    #[error("the bus is suspended")]
    Suspended,
    /// The caller tried to resume a bus that isn't suspended.
    #[error("the bus is not suspended")]
    NotSuspended,
    /// The bus could not request a vector's message again when it was resumed.
    #[error("a message could not be recreated: {0}")]
    NotRecreated(MsiError),
    /// The kernel's heap is exhausted.
    #[error("out of memory for the bus")]
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
            Self::NoVersion => "no common protocol version",
            Self::NoFunction(_) => "the function was removed",
            Self::TooManyUnanswered(_) => "too many requests are unanswered",
            Self::Closed => "the bus is closed",
            Self::Suspended => "the bus is suspended",
            Self::NotSuspended => "the bus is not suspended",
            Self::NotRecreated(_) => "a message could not be recreated",
            Self::NoMemory => "out of memory",
        }
    }

    /// Converts the error for drivers of the bus's functions. `window` identifies the bus.
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
