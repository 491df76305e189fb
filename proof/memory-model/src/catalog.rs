//! The tests of the lock-free cores.

mod vgic;

use crate::case::Case;

/// Returns all tests.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    vgic::CASES.iter()
}
