//! Compares two maps from requester IDs, no matter how the IDs are divided among entries.

use doorbell_inspection::requesters::first_match;
use std::collections::BTreeSet;
use std::ops::Range;

/// Consecutive requesters, and where the first of them is mapped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Span<'d> {
    pub(super) ids: Range<u64>,
    pub(super) target: Target<'d>,
}

impl<'d> Span<'d> {
    pub(super) fn new(first: u32, length: u32, target: Target<'d>) -> Self {
        let first = u64::from(first);
        Self { ids: first..first + u64::from(length), target }
    }
}

/// Where a requester is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target<'d> {
    /// Name of the controller or IOMMU.
    pub(super) name: &'d str,
    /// ID of the requester at that controller or IOMMU, if it has one.
    pub(super) base: Option<u64>,
}

impl Target<'_> {
    /// Returns where the map leads the requester that follows by this distance.
    fn after(self, distance: u64) -> Self {
        Self { base: self.base.map(|base| base.saturating_add(distance)), ..self }
    }
}

/// Requesters that two maps map differently, and where the first of them is mapped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Change<'d> {
    pub(super) ids: Range<u64>,
    pub(super) before: Option<Target<'d>>,
    pub(super) after: Option<Target<'d>>,
}

/// Returns the requesters in `limits` that two maps map differently. In each map, the first entry
/// that contains a requester wins. The running time is dominated by sorting the entries.
pub(super) fn changes<'d>(maps: [&[Span<'d>]; 2], limits: &Range<u64>) -> Vec<Change<'d>> {
    let maps = maps.map(|map| flat(map, limits));
    let ends = maps.iter().flatten().flat_map(|span| [span.ids.start, span.ids.end]);
    let bounds: BTreeSet<u64> = ends.collect();
    let mut changes = Vec::<Change<'d>>::new();
    for (&first, &end) in bounds.iter().zip(bounds.iter().skip(1)) {
        let [before, after] = maps.each_ref().map(|map| target(map, first));
        if before == after {
            continue;
        }
        let continues = |last: &Change<'d>| {
            let by = first - last.ids.start;
            let same = [(last.before, before), (last.after, after)];
            last.ids.end == first
                && same.iter().all(|(one, next)| one.map(|one| one.after(by)) == *next)
        };
        match changes.last_mut().filter(|last| continues(last)) {
            Some(last) => last.ids.end = end,
            None => changes.push(Change { ids: first..end, before, after }),
        }
    }
    changes
}

/// Returns where a requester is mapped by sorted spans that do not overlap.
fn target<'d>(map: &[Span<'d>], id: u64) -> Option<Target<'d>> {
    let span = map.get(map.partition_point(|span| span.ids.end <= id))?;
    Some(span.target.after(id.checked_sub(span.ids.start)?))
}

/// Returns the part of a map within `limits` as sorted spans that do not overlap.
fn flat<'d>(map: &[Span<'d>], limits: &Range<u64>) -> Vec<Span<'d>> {
    let within = |ids: &Range<u64>| ids.start.max(limits.start)..ids.end.min(limits.end);
    let covered: Vec<_> = map.iter().map(|span| within(&span.ids)).collect();
    let pieces = first_match::pieces(&covered).into_iter();
    let spans = pieces.filter_map(|piece| {
        let span = map.get(piece.entry)?;
        let target = span.target.after(piece.ids.start - span.ids.start);
        Some(Span { ids: piece.ids, target })
    });
    spans.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map() -> impl Strategy<Value = Vec<Span<'static>>> {
        let names = prop::sample::select(&["its", "mbi", "v2m"][..]);
        let span = (0_u32..40, 0_u32..20, names, prop::option::of(0_u64..40));
        let span = span.prop_map(|(first, length, name, base)| {
            Span::new(first, length, Target { name, base })
        });
        prop::collection::vec(span, 0..8)
    }

    /// Looks up a requester, entry by entry.
    fn lookup(map: &[Span<'static>], id: u64) -> Option<(&'static str, Option<u64>)> {
        let span = map.iter().find(|span| span.ids.contains(&id))?;
        Some((span.target.name, span.target.base.map(|base| base + id - span.ids.start)))
    }

    proptest! {
        #[test]
        fn changes_cover_exactly_the_requesters_that_differ(
            before in map(),
            after in map(),
            (first, last) in (0_u64..30, 30_u64..64),
        ) {
            let changes = changes([&before, &after], &(first..last));
            for id in 0..64 {
                let change = changes.iter().find(|one| one.ids.contains(&id));
                let (old, new) = (lookup(&before, id), lookup(&after, id));
                prop_assert_eq!(change.is_some(), old != new && (first..last).contains(&id));
                if let Some(Change { ids, before, after }) = change {
                    let at = |target: &Option<Target<'static>>| {
                        target.map(|one| (one.name, one.base.map(|base| base + id - ids.start)))
                    };
                    prop_assert_eq!((at(before), at(after)), (old, new));
                }
            }
            for two in changes.windows(2) {
                prop_assert!(two[0].ids.end <= two[1].ids.start);
            }
        }
    }
}
