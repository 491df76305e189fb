//! Lint rules that check a whole description. The readers check all other rules while they read the
//! input.
//!
//! | module | looks at |
//! |---|---|
//! | `msi_maps` | maps, references, DeviceIDs |
//! | `streams` | StreamIDs |
//! | `segments` | PCI segments, configuration space |
//! | `interrupts` | SPIs that messages and wires use |
//! | `frames` | registers, redistributors |
//! | `known` | facts that only registers tell |
//! | `symptoms` | findings that follow from others |
//! | `contradictions` | two descriptions of one machine |
//!
//! Apart from sorting, each rule takes time and memory proportional to the description.

mod claims;
mod contradictions;
mod frames;
mod known;
pub(crate) mod msi_maps;
mod streams;
mod symptoms;

pub use known::KnownRegisters;

use crate::controller::ControllerIndex;
use crate::description::Description;
use crate::finding::{Finding, FindingList};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use msi_types::DeviceId;

/// Returns all findings about `description`: first the findings of the reader, then those of the
/// rules that check the whole description.
///
/// `known` contains register values. A rule that needs an unknown value does not report anything.
///
/// ```
/// use gic_firmware::lint::{self, KnownRegisters};
/// use gic_firmware::{Rule, devicetree};
///
/// let machine = devicetree::parse_and_check(include_bytes!("../tests/data/mbi.dtb"))?;
/// // The GICD_TYPER of this machine reports no message-based SPIs (MBIS is 0).
/// let known = KnownRegisters { gicd_typer: Some(0x0078_0009), ..Default::default() };
/// let findings = lint::check(&machine, &known);
/// for finding in &findings {
///     println!("{finding}");
/// }
/// assert!(findings.iter().any(|finding| finding.rule == Rule::MbiUnsupported));
/// # Ok::<(), devicetree::DtbError>(())
/// ```
pub fn check(description: &Description, known: &KnownRegisters) -> Vec<Finding> {
    let mut findings = FindingList::new(description.findings.clone());
    msi_maps::check(description, &mut findings);
    streams::check(description, &mut findings);
    streams::check_segments(description, &mut findings);
    known::check_interrupts(description, &mut findings);
    frames::check(description, &mut findings);
    known::check(description, known, &mut findings);
    let mut findings = findings.into_list();
    symptoms::remove(&mut findings);
    findings
}

/// Returns the highest DeviceID of enabled requesters at each enabled controller that needs
/// DeviceIDs.
///
/// Ignores requester IDs outside a host's bus range, and requesters that have no entry in `msi-map`
/// and so fall back to `msi-parent`.
pub fn highest_device_ids(description: &Description) -> BTreeMap<ControllerIndex, DeviceId> {
    let mut highest = BTreeMap::new();
    for claim in claims::claims(description) {
        let known = highest.entry(claim.controller).or_insert(DeviceId::new(claim.last));
        *known = DeviceId::new(known.get().max(claim.last));
    }
    highest
}

/// Returns the contradictions between two descriptions of one machine. The findings point at
/// `other`.
pub fn compare(one: &Description, other: &Description) -> Vec<Finding> {
    let mut findings = FindingList::default();
    contradictions::check(one, other, &mut findings);
    findings.into_list()
}
