//! Inserts additions into a devicetree schema. The schema is edited as text, so that all of its
//! other lines stay unchanged and the result can be sent as a patch.
//!
//! Supports the subset of YAML that schemas use: block mappings and block lists that are indented
//! with spaces. A value in any other form (a flow list, a block scalar) is opaque.

use anyhow::{Result, ensure};

/// Inserts `additions` into `schema`.
///
/// - Mappings are merged key by key. New keys are appended, except at the top level.
/// - A list is appended to the list with the same key.
/// - Any other value replaces the value with the same key.
///
/// # Errors
///
/// Returns an error if the schema lacks a top-level key of the additions, or if a line of either
/// text is indented less than its block.
pub(crate) fn insert(schema: &str, additions: &str) -> Result<String> {
    let (schema, additions) = (entries(schema.lines())?, entries(additions.lines())?);
    for key in additions.iter().filter_map(|entry| entry.key) {
        ensure!(schema.iter().any(|entry| entry.key == Some(key)), "the schema has no \"{key}\"");
    }
    Ok(lines_of(&merge(schema, additions)?).join("\n") + "\n")
}

/// A key with its value, a list item, or a line that is neither, such as a comment.
#[derive(Clone, Debug)]
struct Entry<'t> {
    /// The key without its quotes.
    key: Option<&'t str>,
    /// The lines up to the last one that is not blank.
    lines: Vec<&'t str>,
    /// Number of blank lines that follow.
    gap: usize,
}

enum Value<'t> {
    Mapping(Vec<Entry<'t>>),
    List(Vec<Entry<'t>>),
    Opaque,
}

impl<'t> Entry<'t> {
    fn is_item(&self) -> bool {
        self.lines.first().is_some_and(|line| line.trim_start().starts_with("- "))
    }

    fn value(&self) -> Result<Value<'t>> {
        let is_nested = self.lines.first().is_some_and(|line| line.ends_with(':'));
        if !is_nested {
            return Ok(Value::Opaque);
        }
        let nested = entries(self.lines.iter().skip(1).copied())?;
        let is_commented = |entry: &Entry<'_>| is_comment(entry.lines[0]);
        Ok(match nested.iter().find(|entry| !is_commented(entry)) {
            Some(first) if first.is_item() => Value::List(nested),
            Some(first) if first.key.is_some() => Value::Mapping(nested),
            _ => Value::Opaque,
        })
    }
}

/// Splits a block into its entries.
fn entries<'t>(lines: impl Iterator<Item = &'t str>) -> Result<Vec<Entry<'t>>> {
    let mut entries: Vec<Entry<'t>> = Vec::new();
    let mut indentation = None;
    for line in lines {
        let own = line.len() - line.trim_start().len();
        let block = *indentation.get_or_insert(own);
        match entries.last_mut() {
            Some(last) if line.trim().is_empty() => last.gap += 1,
            Some(last) if own > block => {
                last.lines.extend(std::iter::repeat_n("", last.gap));
                last.gap = 0;
                last.lines.push(line);
            }
            _ => {
                ensure!(own == block, "\"{line}\" is indented less than its block");
                entries.push(Entry { key: key(line), lines: vec![line], gap: 0 });
            }
        }
    }
    Ok(entries)
}

fn merge<'t>(mut schema: Vec<Entry<'t>>, additions: Vec<Entry<'t>>) -> Result<Vec<Entry<'t>>> {
    for addition in additions.into_iter().filter(|entry| entry.key.is_some()) {
        match schema.iter_mut().find(|entry| entry.key == addition.key) {
            Some(entry) => merge_values(entry, addition)?,
            None => append(&mut schema, addition),
        }
    }
    Ok(schema)
}

fn merge_values<'t>(entry: &mut Entry<'t>, addition: Entry<'t>) -> Result<()> {
    let nested = match (entry.value()?, addition.value()?) {
        (Value::Mapping(old), Value::Mapping(new)) => merge(old, new)?,
        (Value::List(mut old), Value::List(new)) => {
            new.into_iter().filter(Entry::is_item).for_each(|item| append(&mut old, item));
            old
        }
        _ => {
            entry.lines = addition.lines;
            return Ok(());
        }
    };
    entry.lines.truncate(1);
    entry.lines.extend(lines_of(&nested));
    Ok(())
}

/// Appends an entry, with as many blank lines before it as follow the first entry.
fn append<'t>(entries: &mut Vec<Entry<'t>>, addition: Entry<'t>) {
    let separation = if let [first, _, ..] = entries.as_slice() { first.gap } else { 0 };
    let end = entries.last_mut().map_or(0, |last| std::mem::replace(&mut last.gap, separation));
    entries.push(Entry { gap: end, ..addition });
}

/// Returns the lines of a block without the blank lines at its end.
fn lines_of<'t>(entries: &[Entry<'t>]) -> Vec<&'t str> {
    let mut lines = Vec::new();
    let mut gap = 0;
    for entry in entries {
        lines.extend(std::iter::repeat_n("", gap));
        lines.extend(&entry.lines);
        gap = entry.gap;
    }
    lines
}

/// Returns the key that `line` starts with, without its quotes.
fn key(line: &str) -> Option<&str> {
    let text = line.trim_start();
    if is_comment(text) || text.starts_with("- ") {
        return None;
    }
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '\''));
    let (key, rest) = match quote {
        Some(quote) => text[1..].split_once(quote)?,
        None => text.split_at(text.find(": ").or(text.strip_suffix(':').map(str::len))?),
    };
    (rest == ":" || rest.starts_with(": ")).then_some(key)
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "\
# A: comment
%YAML 1.2
---
$id: http://example/a.yaml#

properties:
  compatible:
    const: vendor,device

  # quoted
  \"#cells\": true
  reg:
    description:
      The registers.
    maxItems: 1

dependencies:
  reg: [ clocks ]
  clocks: [ reg ]

examples:
  - |
    first: {

    };

...
";

    fn inserted(additions: &str) -> String {
        insert(SCHEMA, additions).unwrap()
    }

    #[test]
    fn an_empty_addition_does_not_change_the_schema() {
        assert_eq!(inserted("# SPDX-License-Identifier: X\n---\n"), SCHEMA);
    }

    #[test]
    fn a_new_key_is_separated_like_its_siblings() {
        let text = inserted("properties:\n  vendor,flag:\n    type: boolean\n");
        let expected = "    maxItems: 1\n\n  vendor,flag:\n    type: boolean\n\ndependencies:\n";
        assert_eq!(text, SCHEMA.replace("    maxItems: 1\n\ndependencies:\n", expected));
        let text = inserted("dependencies:\n  a: [ b ]\n");
        assert_eq!(text, SCHEMA.replace("ks: [ reg ]\n", "ks: [ reg ]\n  a: [ b ]\n"));
    }

    #[test]
    fn a_scalar_or_flow_value_is_replaced_entirely() {
        let text = inserted("properties:\n  reg:\n    description: |\n      Two\n      lines.\n");
        let old = "    description:\n      The registers.\n";
        assert_eq!(text, SCHEMA.replace(old, "    description: |\n      Two\n      lines.\n"));
        let text = inserted("dependencies:\n  reg:\n    required: [ a ]\n");
        assert_eq!(text, SCHEMA.replace(": [ clocks ]", ":\n    required: [ a ]"));
        let text = inserted("properties:\n  '#cells':\n    const: 0\n");
        assert_eq!(text, SCHEMA.replace("\"#cells\": true", "'#cells':\n    const: 0"));
    }

    #[test]
    fn a_new_list_item_is_appended_to_the_existing_list() {
        let text = inserted("examples:\n  - |\n    second: {\n    };\n");
        assert_eq!(text, SCHEMA.replace("    };\n", "    };\n  - |\n    second: {\n    };\n"));
    }

    #[test]
    fn a_section_missing_from_the_schema_is_refused() {
        assert!(insert(SCHEMA, "allOf:\n  - $ref: b.yaml#\n").is_err());
    }

    #[test]
    fn a_line_indented_less_than_its_block_is_refused() {
        assert!(insert("a:\n    b: 1\n  c: 2\n", "a:\n  d: 1\n").is_err());
    }
}
