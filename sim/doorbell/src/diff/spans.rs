//! Compares two maps from requester IDs, no matter how the IDs are divided among entries.

use doorbell_inspection::requesters::first_match;
use std::ops::Range;

/// Consecutive requesters, and the controller or IOMMU that they are mapped to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) first: u64,
    /// First requester ID after the span.
    pub(super) end: u64,
    /// Label of the controller or IOMMU.
    pub(super) label: usize,
    /// Position of the controller or IOMMU in its description, for its name.
    pub(super) index: usize,
    /// ID of the first requester at that controller or IOMMU, if it has one.
    pub(super) base: Option<u64>,
}

impl Span {
    /// Returns the part that begins at `first` and ends at `end`.
    fn part(self, first: u64, end: u64) -> Self {
        let base = self.base.map(|base| base.saturating_add(first.saturating_sub(self.first)));
        Self { first, end, base, ..self }
    }

    /// Returns the part within `limits`.
    pub(super) fn within(self, limits: &Range<u64>) -> Option<Self> {
        let (first, end) = (self.first.max(limits.start), self.end.min(limits.end));
        (first < end).then(|| self.part(first, end))
    }

    /// Returns `true` if `next` continues this span.
    fn is_continued_by(self, next: Self) -> bool {
        self.end == next.first && self.part(next.first, next.end) == next
    }
}

/// Requesters that two maps map differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Change {
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) before: Option<Span>,
    pub(super) after: Option<Span>,
}

/// Returns the requesters that two maps map differently. In each map, the first entry that contains
/// a requester wins. The running time is dominated by sorting the entries.
pub(super) fn changes(before: &[Span], after: &[Span]) -> Vec<Change> {
    let (before, after) = (flat(before), flat(after));
    let mut bounds: Vec<u64> =
        before.iter().chain(&after).flat_map(|span| [span.first, span.end]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    let (mut here, mut there) = (before.iter().peekable(), after.iter().peekable());
    let mut changes = Vec::<Change>::new();
    for window in bounds.windows(2) {
        let &[first, end] = window else { continue };
        while here.next_if(|span| span.end <= first).is_some() {}
        while there.next_if(|span| span.end <= first).is_some() {}
        let part = |span: Option<&&Span>| {
            span.filter(|span| span.first <= first).map(|span| span.part(first, end))
        };
        let (old, new) = (part(here.peek()), part(there.peek()));
        let target = |span: Option<Span>| span.map(|span| (span.label, span.base));
        if target(old) != target(new) {
            push(&mut changes, Change { first, end, before: old, after: new });
        }
    }
    changes
}

/// Appends a change, or extends the last one if the new one continues it on both sides.
fn push(changes: &mut Vec<Change>, next: Change) {
    let continues = |one: Option<Span>, other: Option<Span>| match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.is_continued_by(other),
        _ => false,
    };
    match changes.last_mut() {
        Some(last)
            if last.end == next.first
                && continues(last.before, next.before)
                && continues(last.after, next.after) =>
        {
            last.end = next.end;
            last.before = last.before.map(|span| span.part(span.first, next.end));
            last.after = last.after.map(|span| span.part(span.first, next.end));
        }
        _ => changes.push(next),
    }
}

/// Returns a map as sorted spans that do not overlap.
fn flat(spans: &[Span]) -> Vec<Span> {
    let covered: Vec<_> = spans.iter().map(|span| span.first..span.end).collect();
    let mut flat = Vec::<Span>::new();
    for piece in first_match::pieces(&covered) {
        let Some(span) = spans.get(piece.entry) else { continue };
        let part = span.part(piece.ids.start, piece.ids.end);
        match flat.last_mut() {
            Some(last) if last.is_continued_by(part) => last.end = part.end,
            _ => flat.push(part),
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map() -> impl Strategy<Value = Vec<Span>> {
        let span = (0_u64..40, 0_u64..20, 0_usize..3, prop::option::of(0_u64..40));
        let spans = prop::collection::vec(span, 0..8);
        spans.prop_map(|spans| {
            let span = |(first, length, label, base)| Span {
                first,
                end: first + length,
                label,
                index: label,
                base,
            };
            spans.into_iter().map(span).collect()
        })
    }

    /// Looks up a requester, entry by entry.
    fn lookup(map: &[Span], requester: u64) -> Option<(usize, Option<u64>)> {
        let span = map.iter().find(|span| (span.first..span.end).contains(&requester))?;
        Some((span.label, span.base.map(|base| base + requester - span.first)))
    }

    proptest! {
        #[test]
        fn changes_cover_exactly_the_requesters_that_differ(before in map(), after in map()) {
            let changes = changes(&before, &after);
            for requester in 0..64 {
                let change = changes.iter().find(|one| (one.first..one.end).contains(&requester));
                let (old, new) = (lookup(&before, requester), lookup(&after, requester));
                prop_assert_eq!(change.is_some(), old != new);
                if let Some(change) = change {
                    let at = |span: Option<Span>| span.and_then(|span| lookup(&[span], requester));
                    prop_assert_eq!((at(change.before), at(change.after)), (old, new));
                }
            }
            for two in changes.windows(2) {
                prop_assert!(two[0].end <= two[1].first);
            }
        }

        #[test]
        fn a_map_does_not_differ_from_itself(map in map()) {
            prop_assert_eq!(changes(&map, &map), []);
        }
    }
}
