//! Damages serialized values, to test the code that reads them.

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A change that damages a value, given by its kind and location (an index into all locations of
/// that kind, modulo their number).
#[expect(missing_docs, reason = "the documentation of each change names its fields")]
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// Bit `bit` of the number at `at` is inverted.
    Bit { at: usize, bit: u32 },
    /// The number at `at` is replaced by `number`.
    Number { at: usize, number: u64 },
    /// The number at `at` is replaced by the number at `from`.
    Copy { at: usize, from: usize },
    /// The list at `list` loses item `at`.
    Remove { list: usize, at: usize },
    /// Item `at` of the list at `list` is duplicated.
    Repeat { list: usize, at: usize },
    /// Item `at` of the list at `list` is swapped with the first item.
    Swap { list: usize, at: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<usize>;
    prop_oneof![
        6 => (at(), prop_oneof![0..8u32, 0..64u32]).prop_map(|(at, bit)| Damage::Bit { at, bit }),
        2 => (at(), prop_oneof![0..70_000u64, any::<u64>()])
            .prop_map(|(at, number)| Damage::Number { at, number }),
        2 => (at(), at()).prop_map(|(at, from)| Damage::Copy { at, from }),
        1 => (at(), at()).prop_map(|(list, at)| Damage::Remove { list, at }),
        1 => (at(), at()).prop_map(|(list, at)| Damage::Repeat { list, at }),
        1 => (at(), at()).prop_map(|(list, at)| Damage::Swap { list, at }),
    ]
}

/// Collects all locations of a kind in a tree.
fn places<'a>(value: &'a mut Value, is_meant: fn(&Value) -> bool, found: &mut Vec<&'a mut Value>) {
    if is_meant(value) {
        found.push(value);
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| places(item, is_meant, found)),
        Value::Object(fields) => {
            fields.values_mut().for_each(|field| places(field, is_meant, found));
        }
        _ => {}
    }
}

/// Changes the leaf that is reached by making a given choice at each branch.
fn on_place(tree: &mut Value, mut choice: usize, change: impl FnOnce(&mut Value)) {
    let mut at = tree;
    loop {
        let mut branches: Vec<&mut Value> = match at {
            Value::Array(items) => items.iter_mut().collect(),
            Value::Object(fields) => fields.values_mut().collect(),
            leaf => return change(leaf),
        };
        if branches.is_empty() {
            return;
        }
        let chosen = choice % branches.len();
        choice /= branches.len();
        at = branches.swap_remove(chosen);
    }
}

/// Returns `true` for a list of objects, because other lists have a fixed length.
fn has_list(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.first().is_some_and(Value::is_object))
}

/// Changes one list, which is chosen among all lists, including nested ones.
fn on_list(tree: &mut Value, list: usize, change: impl FnOnce(&mut Vec<Value>)) {
    let mut at = tree;
    let mut choice = list;
    loop {
        let lists = lists_in(at);
        let chosen = choice % lists.max(1);
        choice /= lists.max(1);
        let mut found = Vec::new();
        places(at, has_list, &mut found);
        let Some(Value::Array(items)) = found.into_iter().nth(chosen) else { return };
        let below = items.len() + 1;
        let (here, deeper) = (choice % below, choice / below);
        if here == 0 || lists_in(&mut items[here - 1]) == 0 {
            return change(items);
        }
        (at, choice) = (&mut items[here - 1], deeper);
    }
}

fn lists_in(value: &mut Value) -> usize {
    let mut found = Vec::new();
    places(value, has_list, &mut found);
    found.len()
}

impl Damage {
    fn inflict(self, tree: &mut Value) {
        match self {
            Self::Bit { at, bit } => on_place(tree, at, |value| {
                *value = match &*value {
                    Value::Bool(flag) => json!(!flag),
                    other => json!(other.as_u64().unwrap_or(0) ^ (1 << bit)),
                }
            }),
            Self::Number { at, number } => on_place(tree, at, |value| *value = json!(number)),
            Self::Copy { at, from } => {
                let mut copied = Value::Null;
                on_place(tree, from, |value| copied = value.clone());
                on_place(tree, at, |value| *value = copied);
            }
            Self::Remove { list, at } => {
                on_list(tree, list, |items| drop(items.remove(at % items.len())));
            }
            Self::Repeat { list, at } => on_list(tree, list, |items| {
                let at = at % items.len();
                items.insert(at, items[at].clone());
            }),
            Self::Swap { list, at } => on_list(tree, list, |items| {
                let at = at % items.len();
                items.swap(0, at);
            }),
        }
    }
}

/// Generates between one and three changes.
pub fn damages() -> impl Strategy<Value = Vec<Damage>> {
    proptest::collection::vec(damage(), 1..4)
}

/// Applies all these changes to a value. Returns the changed value, or `None` if it can no longer
/// be deserialized.
pub fn damaged<T: Serialize + DeserializeOwned>(value: &T, all: &[Damage]) -> Option<T> {
    let mut tree = serde_json::to_value(value).ok()?;
    for damage in all {
        damage.inflict(&mut tree);
    }
    serde_json::from_value(tree).ok()
}
