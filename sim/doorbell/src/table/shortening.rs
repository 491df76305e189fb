//! Shortens identifiers so that they remain distinct.

use std::collections::{BTreeMap, BTreeSet};

/// Returns the identifiers, shortened to `limit` characters where this keeps distinct identifiers
/// distinct.
///
/// An identifier keeps its last characters, i.e. the node's own name and address. Identifiers that
/// would become equal also keep the part in which they differ; if this doesn't suffice, they are
/// not shortened.
pub(super) fn shortened<'i>(
    identifiers: impl Iterator<Item = &'i str>,
    limit: usize,
) -> Vec<String> {
    let identifiers: Vec<_> = identifiers.collect();
    let distinct: BTreeSet<&str> = identifiers.iter().copied().collect();
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for identifier in distinct {
        groups.entry(from_left(identifier, limit)).or_default().push(identifier);
    }
    let mut chosen: BTreeMap<&str, String> = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for (short, group) in &groups {
        if let [only] = group[..] {
            taken.insert(short.clone());
            chosen.insert(only, short.clone());
        }
    }
    for group in groups.values().filter(|group| group.len() > 1) {
        let short: Vec<_> = group.iter().map(|one| around(one, suffix(group), limit)).collect();
        let distinct: BTreeSet<&String> = short.iter().collect();
        let is_distinct =
            distinct.len() == short.len() && distinct.is_disjoint(&taken.iter().collect());
        for (one, short) in group.iter().zip(&short) {
            let short = if is_distinct { short.as_str() } else { one };
            taken.insert(short.to_owned());
            chosen.insert(one, short.to_owned());
        }
    }
    let of = |one: &&str| chosen.get(one).cloned().unwrap_or_else(|| (*one).to_owned());
    identifiers.iter().map(of).collect()
}

/// Returns the last characters of an identifier.
fn from_left(identifier: &str, limit: usize) -> String {
    let length = identifier.chars().count();
    if length <= limit {
        return identifier.to_owned();
    }
    let kept = identifier.chars().skip(length + 1 - limit);
    std::iter::once('…').chain(kept).collect()
}

/// Returns the length of the longest common suffix of a group's identifiers.
fn suffix(group: &[&str]) -> usize {
    let Some((first, others)) = group.split_first() else { return 0 };
    let common = |other: &&str| {
        let pairs = first.chars().rev().zip(other.chars().rev());
        pairs.take_while(|(one, other)| one == other).count()
    };
    others.iter().map(common).min().unwrap_or(0)
}

/// Returns the characters up to the place where an identifier differs from its group, and its last
/// characters. `suffix` is the number of characters after that place.
fn around(identifier: &str, suffix: usize, limit: usize) -> String {
    let length = identifier.chars().count();
    let room = limit.saturating_sub(2);
    let head = room.div_ceil(2);
    let end = length.saturating_sub(suffix);
    let differing = identifier.chars().take(end).skip(end.saturating_sub(head));
    let tail = identifier.chars().skip(length - (room - head).min(suffix));
    let begin = (end > head).then_some('…');
    begin.into_iter().chain(differing).chain(std::iter::once('…')).chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_the_same_ending_stay_distinguishable() {
        let names = ["/soc/pcie@20000000/00:00.0", "/soc/pcie@28000000/00:00.0", "/soc/serial"];
        let short = shortened(names.into_iter(), 15);
        assert_eq!(short, ["…pcie@20…0:00.0", "…pcie@28…0:00.0", "/soc/serial"]);
    }

    #[test]
    fn names_that_differ_in_two_places_are_not_shortened() {
        let names = ["/a/bridge/x/ethernet", "/b/bridge/x/ethernet", "/b/bridge/y/ethernet"];
        assert_eq!(shortened(names.into_iter(), 10), names);
    }
}
