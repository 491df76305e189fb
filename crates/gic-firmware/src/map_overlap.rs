//! Finds requester IDs that are in two entries of a map.

use crate::finding::Rule;
use crate::finding_list::FindingList;
use crate::origin::Fact;
use crate::requester::MapEntry;
use alloc::format;
use alloc::vec::Vec;

/// Reports each entry whose first requester ID is also in an entry that starts at the same or a
/// lower ID.
pub(crate) fn report_overlaps(map: &[Fact<MapEntry>], findings: &mut FindingList) {
    let mut claims: Vec<_> =
        map.iter().map(|entry| (entry.rid_base.get(), u64::from(entry.length), entry)).collect();
    claims.sort_by_key(|&(first, ..)| first);
    let mut claimed_to = 0;
    for (first, length, entry) in claims {
        if length > 0 && u64::from(first) < claimed_to {
            let message = format!("requester {first:#x} is also claimed by another entry");
            findings.add(Rule::MapOverlap, entry.origin.clone(), message);
        }
        claimed_to = claimed_to.max(u64::from(first) + length);
    }
}
