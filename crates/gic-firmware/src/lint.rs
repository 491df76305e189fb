//! Rules over a whole description, beside those that its reader applies.
//!
//! | module | looks at |
//! |---|---|
//! | `routes` | maps, references, DeviceIDs |
//! | `interrupts` | SPIs that messages and wires use |
//! | `frames` | registers, redistributors |
//! | `known` | what only registers tell |
//! | `contradictions` | two descriptions of one machine |
//!
//! Each takes time and memory proportional to the description, apart from sorting.

mod claims;
mod contradictions;
mod frames;
mod interrupts;
mod known;
mod routes;

pub use known::KnownRegisters;

use crate::description::Description;
use crate::finding::Finding;
use crate::findings::Findings;
use alloc::vec::Vec;

/// Returns what is wrong with `description`: what its reader found, then what shows in the whole.
///
/// `known` are values of registers; what they do not tell is unknown, and no finding.
pub fn check(description: &Description, known: &KnownRegisters) -> Vec<Finding> {
    let mut findings = Findings::new(description.findings.clone());
    routes::check(description, &mut findings);
    interrupts::check(description, &mut findings);
    frames::check(description, &mut findings);
    known::check(description, known, &mut findings);
    findings.into_list()
}

/// Returns contradictions between two descriptions of one machine. They point at `other`.
pub fn compare(one: &Description, other: &Description) -> Vec<Finding> {
    let mut findings = Findings::default();
    contradictions::check(one, other, &mut findings);
    findings.into_list()
}
