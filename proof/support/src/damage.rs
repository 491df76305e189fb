//! Damages serialized values, to test the code that reads them.

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

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

/// Returns the values directly inside of a value.
fn branches(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    }
}

/// Returns `true` if a value of a kind is this value or is inside of it.
fn holds(value: &Value, is_meant: fn(&Value) -> bool) -> bool {
    let mut items = value.as_array().into_iter().flatten();
    let mut fields = value.as_object().into_iter().flat_map(Map::values);
    is_meant(value) || items.any(|it| holds(it, is_meant)) || fields.any(|it| holds(it, is_meant))
}

/// Returns the value of a kind that is reached by making a given choice at each branch.
fn place(at: &mut Value, choice: usize, is_meant: fn(&Value) -> bool) -> Option<&mut Value> {
    let is_here = usize::from(is_meant(at));
    let count = is_here + branches(at).iter().filter(|branch| holds(branch, is_meant)).count();
    let (chosen, rest) = (choice.checked_rem(count)?, choice / count);
    if chosen < is_here {
        return Some(at);
    }
    let mut below = branches(at).into_iter().filter(|branch| holds(branch, is_meant));
    place(below.nth(chosen - is_here)?, rest, is_meant)
}

fn on_place(tree: &mut Value, choice: usize, change: impl FnOnce(&mut Value)) {
    place(tree, choice, |value| !value.is_array() && !value.is_object()).map(change);
}

/// Changes a list of objects, because other lists have a fixed length.
fn on_list(tree: &mut Value, choice: usize, change: impl FnOnce(&mut Vec<Value>)) {
    let is_meant = |value: &Value| value.get(0).is_some_and(Value::is_object);
    place(tree, choice, is_meant).and_then(Value::as_array_mut).map(change);
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
