//! Objects with fields, which are compared one by one.

use super::difference::{Difference, Differences, Section};
use std::collections::BTreeMap;

/// Maximum number of values shown from a list.
const SHOWN: usize = 8;

/// A node, CPU or table entry.
#[derive(Debug, Default)]
pub(super) struct Object {
    pub(super) name: String,
    /// Keys by which the object's counterpart is found, the most reliable first.
    pub(super) keys: Vec<String>,
    fields: BTreeMap<(Section, &'static str), Vec<Value>>,
}

/// One of a field's values.
#[derive(Clone, Debug)]
struct Value {
    /// Two values are equal if their keys are. The text may contain a node's name, which differs if
    /// the node has moved.
    key: String,
    text: String,
}

impl Object {
    pub(super) fn new(name: &impl ToString, keys: impl IntoIterator<Item = String>) -> Self {
        let keys = keys.into_iter().collect();
        Self { name: name.to_string(), keys, ..Self::default() }
    }

    /// Adds a value to a field.
    pub(super) fn add(&mut self, section: Section, field: &'static str, text: &impl ToString) {
        let text = text.to_string();
        self.add_keyed(section, field, text.clone(), text);
    }

    /// Adds a value that is compared by `key`.
    pub(super) fn add_keyed(
        &mut self,
        section: Section,
        field: &'static str,
        key: String,
        text: String,
    ) {
        self.fields.entry((section, field)).or_default().push(Value { key, text });
    }

    /// Returns the fields as one line.
    fn summary(&self, section: Section) -> String {
        let mine = self.fields.iter().filter(|((of, _), _)| *of == section);
        let each = mine.map(|((_, field), values)| {
            format!("{field} {}", shown(values.iter(), values.len() > SHOWN))
        });
        each.collect::<Vec<_>>().join("; ")
    }
}

/// Reports the differences between two counterparts in a section. Names are compared if
/// `has_names`.
pub(super) fn compare(
    section: Section,
    old: Option<&Object>,
    new: Option<&Object>,
    has_names: bool,
    found: &mut Differences,
) {
    let (Some(one), Some(other)) = (old, new) else {
        let Some(object) = old.or(new) else { return };
        let summary = |one: Option<&Object>| one.map(|one| one.summary(section));
        found.add(Difference {
            section,
            object: object.name.clone(),
            was: None,
            field: None,
            before: summary(old),
            after: summary(new),
        });
        return;
    };
    let was = (one.name != other.name).then(|| one.name.clone());
    if let Some(name) = was.as_ref().filter(|_| has_names) {
        found.add(Difference {
            section,
            object: other.name.clone(),
            was: was.clone(),
            field: Some("node".into()),
            before: Some(name.clone()),
            after: Some(other.name.clone()),
        });
    }
    let mine = |object: &Object| -> Vec<&'static str> {
        let all = object.fields.keys().filter(|(of, _)| *of == section);
        all.map(|(_, field)| *field).collect()
    };
    let mut fields = [mine(one), mine(other)].concat();
    fields.sort_unstable();
    fields.dedup();
    for field in fields {
        let values = |object: &Object| object.fields.get(&(section, field)).cloned();
        let (before, after) = (values(one), values(other));
        if let Some((before, after)) = changed(before, after) {
            found.add(Difference {
                section,
                object: other.name.clone(),
                was: was.clone(),
                field: Some(field.into()),
                before,
                after,
            });
        }
    }
}

/// Returns two fields as text, or `None` if they are equal.
fn changed(
    before: Option<Vec<Value>>,
    after: Option<Vec<Value>>,
) -> Option<(Option<String>, Option<String>)> {
    let keys = |values: &Option<Vec<Value>>| -> Vec<String> {
        values.iter().flatten().map(|value| value.key.clone()).collect()
    };
    let (here, there) = (keys(&before), keys(&after));
    if here == there {
        return None;
    }
    // Long lists are shown without their common prefix and suffix.
    let is_long = here.len().max(there.len()) > SHOWN;
    let equal = |pairs: &mut dyn Iterator<Item = (&String, &String)>| {
        if is_long { pairs.take_while(|(one, other)| one == other).count() } else { 0 }
    };
    let first = equal(&mut here.iter().zip(&there));
    let rest = (here.get(first..)?, there.get(first..)?);
    let last = equal(&mut rest.0.iter().rev().zip(rest.1.iter().rev()));
    let text = |values: Option<Vec<Value>>| {
        values.map(|values| {
            let middle = values.len().saturating_sub(first + last);
            shown(values.iter().skip(first).take(middle), is_long)
        })
    };
    Some((text(before), text(after)))
}

fn shown<'v>(values: impl ExactSizeIterator<Item = &'v Value>, is_part: bool) -> String {
    let more = values.len().saturating_sub(SHOWN);
    let mut all: Vec<&str> = values.take(SHOWN).map(|value| value.text.as_str()).collect();
    if all.is_empty() {
        return String::from(if is_part { "(without)" } else { "(empty)" });
    }
    let count = format!("and {more} more");
    if more > 0 {
        all.push(&count);
    }
    all.join(", ")
}
