//! Errors of changes to routes. A change that fails changes nothing.

use msi_types::Gsi;

/// Reason for which routes were not changed, or a GSI not given: the monitor named something that
/// does not exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// A GSI from the limit on.
    #[error("GSI {gsi} does not exist: there are {limit}, from 0 on")]
    NoSuchGsi {
        /// The GSI.
        gsi: Gsi,
        /// Number of existing GSIs.
        limit: u32,
    },
    /// A table with two routes of one GSI.
    #[error("the table has more than one route for GSI {0}")]
    DuplicateGsi(Gsi),
    /// Every GSI that can be given is taken.
    #[error("no GSI is free: all from {first} on, below the limit of {limit}, are taken")]
    GsisExhausted {
        /// The first that can be given.
        first: Gsi,
        /// Number of existing GSIs.
        limit: u32,
    },
    /// A GSI that is not given out cannot be given back.
    #[error("GSI {0} cannot be released: it was not allocated, or was released before")]
    NotAllocated(Gsi),
    /// The kernel does not take the table.
    #[error("KVM refuses the routing table: error {errno}")]
    Refused {
        /// Its error number.
        errno: i32,
    },
}

/// An interrupt that leads nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// There is no route.
    #[error("GSI {0} has no route")]
    Unrouted(Gsi),
    /// A level was set low, but the GSI leads to a message, which has no level.
    #[error("GSI {0} leads to a message, which cannot be taken back")]
    Message(Gsi),
    /// The kernel does not take the interrupt.
    #[error("KVM refuses the interrupt: error {errno}")]
    Refused {
        /// Its error number.
        errno: i32,
    },
}
