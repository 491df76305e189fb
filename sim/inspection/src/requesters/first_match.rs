//! Divides requester IDs among the entries of a map. The first entry that contains an ID applies.

use crate::work;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

/// Consecutive requester IDs to which the same map entry applies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Position of the entry.
    pub entry: usize,
    /// The requester IDs.
    pub ids: Range<u64>,
}

/// Returns the parts of a map's entries that apply to `ids`, in ascending order and disjoint: the
/// position of each entry, and the first requester ID and the number of requester IDs. Entries are
/// stated in the same way; one that extends past 32 bits is truncated.
pub(super) fn parts(
    entries: impl Iterator<Item = (u32, u32)>,
    ids: &Range<u64>,
) -> Vec<(usize, (u32, u32))> {
    let covered = entries.map(|(base, length)| {
        let end = (u64::from(base) + u64::from(length)).min(1 << 32);
        u64::from(base).max(ids.start)..end.min(ids.end)
    });
    let pieces = pieces(&covered.collect::<Vec<_>>()).into_iter();
    let parts = pieces.filter_map(|piece| {
        let base = u32::try_from(piece.ids.start).ok()?;
        let length = u32::try_from(piece.ids.end - piece.ids.start).unwrap_or(u32::MAX);
        Some((piece.entry, (base, length)))
    });
    parts.collect()
}

/// Returns the pieces of a map, in ascending order and disjoint. Each of `entries` is a range of
/// requester IDs.
///
/// The number of pieces is at most twice the number of entries. Apart from sorting, the work is
/// proportional to the number of entries.
pub fn pieces(entries: &[Range<u64>]) -> Vec<Piece> {
    let range = |entry: usize| entries.get(entry).cloned().unwrap_or_default();
    let mut starts: Vec<usize> =
        (0..entries.len()).filter(|entry| !range(*entry).is_empty()).collect();
    starts.sort_by_key(|entry| range(*entry).start);
    let mut starts = starts.into_iter().peekable();
    let mut open: BinaryHeap<Reverse<usize>> = BinaryHeap::new();
    let mut pieces: Vec<Piece> = Vec::new();
    let mut at = 0;
    loop {
        work::step();
        while let Some(entry) = starts.next_if(|entry| range(*entry).start <= at) {
            open.push(Reverse(entry));
        }
        while open.peek().is_some_and(|first| range(first.0).end <= at) {
            open.pop();
        }
        let next = starts.peek().map(|entry| range(*entry).start);
        let Some(Reverse(entry)) = open.peek().copied() else {
            match next {
                Some(start) => at = start,
                None => return pieces,
            }
            continue;
        };
        let end = next.map_or(range(entry).end, |next| next.min(range(entry).end));
        match pieces.last_mut() {
            Some(last) if last.entry == entry && last.ids.end == at => last.ids.end = end,
            _ => pieces.push(Piece { entry, ids: at..end }),
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::{prop_assert, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn the_first_matching_entry_applies(
            entries in vec((0u32..40, 0u32..20), 0..12),
            (first, last) in (0u64..30, 0u64..60),
        ) {
            let ids = first..last;
            let parts = parts(entries.iter().copied(), &ids);
            prop_assert!(parts.len() <= 2 * entries.len());
            let range = |(base, length): (u32, u32)| base..base + length;
            prop_assert!(parts.is_sorted_by(|one, next| range(one.1).end <= next.1.0));
            for id in 0..64 {
                let expected = entries.iter().position(|entry| range(*entry).contains(&id));
                let expected = expected.filter(|_| ids.contains(&id.into()));
                let found = parts.iter().find(|(_, part)| range(*part).contains(&id));
                prop_assert_eq!(found.map(|(entry, _)| *entry), expected);
            }
        }
    }

    #[test]
    fn an_entry_is_truncated_at_the_32_bit_limit() {
        assert_eq!(parts([(u32::MAX, 5)].into_iter(), &(0..1 << 32)), [(0, (u32::MAX, 1))]);
    }
}
