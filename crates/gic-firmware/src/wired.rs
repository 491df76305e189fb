//! Users of wired interrupts, according to firmware.

use crate::origin::{Fact, NodeId};
use crate::status::Status;
use alloc::vec::Vec;
use gic_arch::IntId;

/// A node whose interrupt lines are connected to the GIC, or a nexus that connects other nodes'
/// lines to the GIC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WiredUser {
    /// Node of the user.
    pub id: NodeId,
    /// Status of the node according to firmware.
    pub status: Fact<Status>,
    /// Interrupts, in firmware's order. A timer (`arm,armv8-timer`) has the PPIs of the secure,
    /// physical, virtual and hypervisor timers.
    pub interrupts: Vec<Fact<IntId>>,
}
