//! Finds requester IDs that are in two entries of a map.

use crate::description::MapEntry;
use crate::finding::{Fact, FindingList, Origin, Rule};
use alloc::collections::BinaryHeap;
use alloc::format;
use alloc::vec::Vec;

/// Reports each entry whose first requester ID is also in an entry that starts at the same or a
/// lower ID.
pub(crate) fn report_overlaps(map: &[Fact<MapEntry>], findings: &mut FindingList) {
    let claims = map.iter().map(|entry| (entry.rid_base.get(), entry.length, &entry.origin));
    report_shared(claims, findings);
}

/// Reports overlaps of entries, given as (first requester ID, length, origin).
pub(crate) fn report_shared<'m>(
    claims: impl Iterator<Item = (u32, u32, &'m Origin)>,
    findings: &mut FindingList,
) {
    let claims: Vec<_> = claims.collect();
    // A heap sort takes a few hundred bytes of a kernel, and the sorts of slices take 4 KB.
    let order: BinaryHeap<_> = claims.iter().map(|claim| claim.0).zip(0..).collect();
    let mut claimed_to = 0;
    for (_, index) in order.into_sorted_vec() {
        let Some(&(first, length, origin)) = claims.get::<usize>(index) else { continue };
        if length > 0 && u64::from(first) < claimed_to {
            let last = claimed_to.min(u64::from(first) + u64::from(length)) - 1;
            let of = match origin.item() {
                item @ ("msi-map" | "iommu-map") => format!(" of `{item}`"),
                _ => alloc::string::String::new(),
            };
            let message =
                format!("requesters {first:#x} to {last:#x} are claimed by two entries{of}");
            findings.add(Rule::MapOverlap, origin.clone(), message);
        }
        claimed_to = claimed_to.max(u64::from(first) + u64::from(length));
    }
}
