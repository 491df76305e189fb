//! Reads rows from the JSON output of `doorbell`, and compares the rows with another source.

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

/// Compares a value that the command shows with the value from another source.
///
/// # Errors
/// Fails if the values differ.
pub(crate) fn same(what: &str, ours: &impl Serialize, theirs: &impl Serialize) -> Result<()> {
    let (ours, theirs) = (json!(ours), json!(theirs));
    ensure!(ours == theirs, "{what}: the command shows {ours}, the other source {theirs}");
    Ok(())
}

/// Returns the list with this name in a JSON object.
///
/// # Errors
/// Fails if the object has no list with this name.
pub(crate) fn list<'a>(said: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    said[name].as_array().with_context(|| format!("no {name}"))
}

/// Returns the given members of each object in a list, in order.
///
/// # Errors
/// Fails if the object has no list with this name.
pub(crate) fn columns(said: &Value, name: &str, members: &[&str]) -> Result<Vec<Vec<Value>>> {
    let row = |row: &Value| members.iter().map(|member| row[*member].clone()).collect();
    Ok(list(said, name)?.iter().map(row).collect())
}

/// Returns rows sorted alphabetically by their first members.
pub(crate) fn sorted(mut rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    rows.sort_by_key(|row| row.first().map(Value::to_string));
    rows
}

/// Returns a string, which is empty if the value is not a string.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
