//! The size of a measured machine.

/// Numbers of vCPUs, ITSes and mapped events of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Number of ITSes, which share the events.
    pub its: u32,
    /// Number of mapped events.
    pub events: u32,
}
