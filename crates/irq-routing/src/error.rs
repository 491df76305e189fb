//! Errors from route changes and signals. A failed change has no effect.

use core::time::Duration;
use msi_types::Gsi;

/// Reason why routes were not changed, or why a GSI was not allocated or released. The VMM is at
/// fault, except for [`GsisExhausted`](Self::GsisExhausted) and [`Refused`](Self::Refused).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The GSI is not below the limit.
    #[error("GSI {gsi} does not exist: GSIs must be below {limit}")]
    NoSuchGsi {
        /// The GSI.
        gsi: Gsi,
        /// Number of GSIs that the router has.
        limit: u32,
    },
    /// The table has two routes for one GSI.
    #[error("the table has more than one route for GSI {0}")]
    DuplicateGsi(Gsi),
    /// All allocatable GSIs are in use.
    #[error("no GSI is free: all from {first} up to the limit of {limit} are in use")]
    GsisExhausted {
        /// First allocatable GSI.
        first: Gsi,
        /// Number of GSIs that the router has.
        limit: u32,
    },
    /// The GSI to be released is not allocated.
    #[error("GSI {0} cannot be released: it is not allocated, or was named twice")]
    NotAllocated(Gsi),
    /// The kernel refused the table.
    #[error("KVM refused the routing table: errno {errno}")]
    Refused {
        /// The system call's error number.
        errno: i32,
    },
}

/// Reason why an interrupt was not signaled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// The GSI is unrouted.
    #[error("GSI {0} has no route")]
    Unrouted(Gsi),
    /// The kernel refused the interrupt.
    #[error("KVM refused the interrupt: errno {errno}")]
    Refused {
        /// The system call's error number.
        errno: i32,
    },
}

/// Error for signals that were still being served at the time limit of a `settle`. Either a device
/// has not stopped, or a function that serves a signal blocks, such as a vCPU's kick.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("signals are still being served after {0:?}: a device still signals, or a kick blocks")]
pub struct Unsettled(pub Duration);
