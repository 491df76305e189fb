//! The tests of the lock-free cores.

mod irq_domain;
mod irq_routing;
mod vgic;

use crate::case::Case;

/// Returns all tests. Those that end soon are last, so that no CPU is idle at the end.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    vgic::CASES.iter().chain(irq_domain::CASES).chain(irq_routing::CASES)
}
