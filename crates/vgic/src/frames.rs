//! The guest's register frames: distributor, redistributors, ITSes, message-based SPIs and GICv2m.

pub(crate) mod distributor;
pub mod its;
pub(crate) mod mbi;
pub(crate) mod per_interrupt;
pub(crate) mod redistributor;
pub(crate) mod registers;
pub(crate) mod v2m;
