//! Objects with fields, which are compared one by one.

use super::difference::{Difference, Differences, Section};
use super::spans::{self, Change, Span, Target};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;

/// Maximum number of values shown from a list.
const SHOWN: usize = 8;

/// A node, CPU or table entry, with the facts of one section.
#[derive(Debug, Default)]
pub(super) struct Object<'d> {
    pub(super) name: String,
    /// Full path of the node, or identification of the table entry.
    pub(super) node: String,
    /// Keys by which the object's counterpart is found, the most reliable first.
    pub(super) keys: Vec<String>,
    fields: BTreeMap<&'static str, Vec<String>>,
    /// Where the object's requesters are mapped.
    pub(super) map: Vec<Span<'d>>,
    /// Requester IDs of a host's buses.
    pub(super) buses: Option<Range<u64>>,
}

/// An object of the old description, and its counterpart in the new one.
pub(super) type Pair<'o, 'd> = (Option<&'o Object<'d>>, Option<&'o Object<'d>>);

impl Object<'_> {
    pub(super) fn new(name: &impl ToString, keys: impl IntoIterator<Item = String>) -> Self {
        let (name, keys) = (name.to_string(), keys.into_iter().collect());
        Self { node: name.clone(), name, keys, ..Self::default() }
    }

    /// Adds values to a field.
    pub(super) fn add<V: ToString>(
        &mut self,
        field: &'static str,
        values: impl IntoIterator<Item = V>,
    ) {
        let mut values = values.into_iter().map(|value| value.to_string()).peekable();
        if values.peek().is_some() {
            self.fields.entry(field).or_default().extend(values);
        }
    }

    /// Returns the fields as one line.
    fn summary(&self) -> String {
        let fields = self.fields.iter();
        let each = fields
            .map(|(field, values)| format!("{field} {}", shown(values, values.len() > SHOWN)));
        each.collect::<Vec<_>>().join("; ")
    }
}

/// Pairs objects by their first keys, then the remaining ones by their second keys, and so on.
/// Objects with the same key are paired in order. The result is in the order of the old list,
/// followed by the objects that only the new list has.
pub(super) fn pairs<'o, 'd>(old: &'o [Object<'d>], new: &'o [Object<'d>]) -> Vec<Pair<'o, 'd>> {
    let (mut of_old, mut added) = (vec![None; old.len()], vec![true; new.len()]);
    let tiers = old.iter().chain(new).map(|object| object.keys.len()).max().unwrap_or(0);
    for tier in 0..tiers {
        let mut open = HashMap::<&str, VecDeque<_>>::new();
        for (object, is_added) in new.iter().zip(&mut added).filter(|(_, is_added)| **is_added) {
            if let Some(key) = object.keys.get(tier) {
                open.entry(key).or_default().push_back((object, is_added));
            }
        }
        for (object, counterpart) in old.iter().zip(&mut of_old).filter(|(_, it)| it.is_none()) {
            let same = object.keys.get(tier).and_then(|key| open.get_mut(key.as_str()));
            *counterpart = same.and_then(VecDeque::pop_front).map(|(other, is_added)| {
                *is_added = false;
                other
            });
        }
    }
    let known = old.iter().zip(of_old).map(|(object, other)| (Some(object), other));
    let added = new.iter().zip(added).filter(|(_, is_added)| *is_added);
    known.chain(added.map(|(object, _)| (None, Some(object)))).collect()
}

/// Reports the differences between two counterparts in a section. Names are compared only within
/// one form of firmware.
pub(super) fn compare(
    section: Section,
    (old, new): Pair<'_, '_>,
    is_same_form: bool,
    found: &mut Differences,
) {
    let Some(object) = new.or(old) else { return };
    let was = old.filter(|old| old.name != object.name).map(|old| old.name.clone());
    let mut add = |field: Option<String>, before, after| {
        let (object, was) = (object.name.clone(), was.clone());
        found.add(Difference { section, object, was, field, before, after });
    };
    let (Some(one), Some(other)) = (old, new) else {
        // The section of routes states which requesters were added or removed.
        if section != Section::Isolation {
            add(None, old.map(Object::summary), new.map(Object::summary));
        }
        return;
    };
    if one.name != other.name && is_same_form && section != Section::Isolation {
        add(Some("node".into()), Some(one.name.clone()), Some(other.name.clone()));
    }
    for field in one.fields.keys().chain(other.fields.keys()).collect::<BTreeSet<_>>() {
        if let Some((before, after)) = changed(one.fields.get(field), other.fields.get(field)) {
            add(Some((*field).to_owned()), before, after);
        }
    }
    // Tables and devicetrees state different ranges of buses.
    let buses = one.buses.as_ref().zip(other.buses.as_ref()).filter(|_| !is_same_form);
    let common = buses
        .map_or(0..u64::MAX, |(one, other)| one.start.max(other.start)..one.end.min(other.end));
    let name = if section == Section::Routes { "DeviceID" } else { "StreamID" };
    for Change { ids, before, after } in spans::changes([&one.map, &other.map], &common) {
        let (first, last) = (ids.start, ids.end - 1);
        let text = |target: Target<'_>| match target.base {
            None => target.name.to_owned(),
            Some(base) if first == last => format!("{name} {base:#x} at {}", target.name),
            Some(base) => {
                let last = base.saturating_add(last - first);
                format!("{name}s {base:#x} to {last:#x} at {}", target.name)
            }
        };
        let field = if first == last {
            format!("requester {last:#06x}")
        } else {
            format!("requesters {first:#06x} to {last:#06x}")
        };
        add(Some(field), before.map(text), after.map(text));
    }
}

/// Returns two fields as text, or `None` if they are equal.
fn changed(
    before: Option<&Vec<String>>,
    after: Option<&Vec<String>>,
) -> Option<(Option<String>, Option<String>)> {
    if before == after {
        return None;
    }
    let lists = [before, after].map(|values| values.map_or(&[][..], Vec::as_slice));
    // Long lists are shown without their common prefix and suffix.
    let is_long = lists.iter().any(|values| values.len() > SHOWN);
    let equal = |pairs: &mut dyn Iterator<Item = (&String, &String)>| {
        if is_long { pairs.take_while(|(one, other)| one == other).count() } else { 0 }
    };
    let first = equal(&mut lists[0].iter().zip(lists[1]));
    let rest = lists.map(|values| values.get(first..).unwrap_or_default());
    let last = equal(&mut rest[0].iter().rev().zip(rest[1].iter().rev()));
    let middle = rest.map(|values| values.get(..values.len() - last).unwrap_or_default());
    let text = |is_stated: bool, values| is_stated.then(|| shown(values, is_long));
    Some((text(before.is_some(), middle[0]), text(after.is_some(), middle[1])))
}

fn shown(values: &[String], is_part: bool) -> String {
    if values.is_empty() {
        return String::from(if is_part { "(without)" } else { "(empty)" });
    }
    let mut all: Vec<_> = values.iter().take(SHOWN).map(String::as_str).collect();
    let more = format!("and {} more", values.len().saturating_sub(SHOWN));
    if values.len() > SHOWN {
        all.push(&more);
    }
    all.join(", ")
}
