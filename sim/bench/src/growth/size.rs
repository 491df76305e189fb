//! The size of a measured machine.

/// A machine's number of vCPUs, ITSes and mapped events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Number of ITSes, among which the events are divided.
    pub its: u32,
    /// Number of mapped events.
    pub events: u32,
}
