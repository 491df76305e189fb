//! The size of a measured machine.

/// vCPUs, ITSes and mapped events of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// vCPUs.
    pub vcpus: u32,
    /// ITSes, which share the events.
    pub its: u32,
    /// Mapped events.
    pub events: u32,
}
