//! Users of wired interrupts, as firmware describes them.

use crate::origin::{Fact, NodeId};
use crate::status::Status;
use alloc::vec::Vec;
use gic_arch::IntId;

/// A node whose wires lead to the GIC, or one that connects others' wires to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WiredUser {
    /// Its node.
    pub id: NodeId,
    /// State that firmware gives it.
    pub status: Fact<Status>,
    /// The interrupts, in firmware's order. Those of a timer (`arm,armv8-timer`) are the PPIs of
    /// the secure, physical, virtual and hypervisor timers.
    pub interrupts: Vec<Fact<IntId>>,
}
