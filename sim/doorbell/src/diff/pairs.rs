//! Finds each object's counterpart in the other description.

use super::object::Object;
use super::sides::Labels;
use std::collections::{HashMap, VecDeque};

/// Positions of an object in the old and in the new list.
pub(super) type Pair = (Option<usize>, Option<usize>);

/// Pairs objects by their first keys, then the remaining ones by their second keys, and so on.
/// Objects with the same key are paired in order. The result is in the order of the old list,
/// followed by the objects that only the new list has.
pub(super) fn pair(old: &[Object], new: &[Object]) -> Vec<Pair> {
    let (mut of_old, mut taken) = (vec![None; old.len()], vec![false; new.len()]);
    let tiers = old.iter().chain(new).map(|object| object.keys.len()).max().unwrap_or(0);
    for tier in 0..tiers {
        let mut open = HashMap::<&str, VecDeque<usize>>::new();
        for (index, object) in new.iter().enumerate().filter(|(index, _)| !is_set(&taken, *index)) {
            if let Some(key) = object.keys.get(tier) {
                open.entry(key).or_default().push_back(index);
            }
        }
        for (object, counterpart) in old.iter().zip(&mut of_old) {
            let Some(key) = object.keys.get(tier).filter(|_| counterpart.is_none()) else {
                continue;
            };
            *counterpart = open.get_mut(key.as_str()).and_then(VecDeque::pop_front);
            if let Some(flag) = counterpart.and_then(|index| taken.get_mut(index)) {
                *flag = true;
            }
        }
    }
    let added = (0..new.len()).filter(|index| !is_set(&taken, *index));
    let added: Vec<Pair> = added.map(|index| (None, Some(index))).collect();
    let known = of_old.into_iter().enumerate().map(|(index, other)| (Some(index), other));
    known.chain(added).collect()
}

fn is_set(flags: &[bool], index: usize) -> bool {
    flags.get(index).is_some_and(|flag| *flag)
}

/// Labels objects: counterparts have the same label.
pub(super) fn labels(pairs: &[Pair], old: usize, new: usize) -> Labels {
    let mut labels = Labels { old: vec![0; old], new: vec![0; new] };
    for (label, (one, other)) in pairs.iter().enumerate() {
        if let Some(slot) = one.and_then(|index| labels.old.get_mut(index)) {
            *slot = label;
        }
        if let Some(slot) = other.and_then(|index| labels.new.get_mut(index)) {
            *slot = label;
        }
    }
    labels
}
