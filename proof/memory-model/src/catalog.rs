//! The tests of the lock-free cores.

mod irq_domain;
mod irq_routing;
mod vgic;

use crate::case::Case;

/// Returns all tests.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    vgic::CASES.iter().chain(irq_routing::CASES).chain(irq_domain::CASES)
}
