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
mod msi_maps;

pub use known::KnownRegisters;

use crate::controller::ControllerIndex;
use crate::description::Description;
use crate::finding::Finding;
use crate::finding_list::FindingList;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use msi_types::DeviceId;

/// Returns what is wrong with `description`: what its reader found, then what shows in the whole.
///
/// `known` are values of registers; what they do not tell is unknown, and no finding.
pub fn check(description: &Description, known: &KnownRegisters) -> Vec<Finding> {
    let mut findings = FindingList::new(description.findings.clone());
    msi_maps::check(description, &mut findings);
    interrupts::check(description, &mut findings);
    frames::check(description, &mut findings);
    known::check(description, known, &mut findings);
    findings.into_list()
}

/// Returns the highest DeviceID that enabled requesters have at each enabled controller that needs
/// DeviceIDs.
///
/// Requester IDs count as far as a host's buses reach. What `msi-map` leaves to `msi-parent` does
/// not count.
pub fn highest_device_ids(description: &Description) -> BTreeMap<ControllerIndex, DeviceId> {
    let mut highest = BTreeMap::new();
    for claim in claims::claims(description) {
        let known = highest.entry(claim.controller).or_insert(DeviceId::new(claim.last));
        *known = DeviceId::new(known.get().max(claim.last));
    }
    highest
}

/// Returns contradictions between two descriptions of one machine. They point at `other`.
pub fn compare(one: &Description, other: &Description) -> Vec<Finding> {
    let mut findings = FindingList::default();
    contradictions::check(one, other, &mut findings);
    findings.into_list()
}
