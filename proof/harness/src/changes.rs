//! Computes the differences between two lists of lines.

use std::collections::BTreeMap;

/// Returns the lines that occur only in `expected`, prefixed with `-`, and the lines that occur
/// only in `found`, prefixed with `+`, sorted by text.
///
/// Repeated lines are counted with their multiplicity.
pub fn between(expected: &str, found: &str) -> Vec<String> {
    let mut counts = BTreeMap::<&str, isize>::new();
    expected.lines().for_each(|line| *counts.entry(line).or_default() -= 1);
    found.lines().for_each(|line| *counts.entry(line).or_default() += 1);
    let changed = counts.into_iter().flat_map(|(line, count)| {
        let sign = if count < 0 { '-' } else { '+' };
        std::iter::repeat_n(format!("{sign} {line}"), count.unsigned_abs())
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_only_one_list_are_changes() {
        assert_eq!(between("a\nb\n", "b\nc\n"), ["- a", "+ c"]);
        assert!(between("a\nb\n", "a\nb\n").is_empty());
    }

    #[test]
    fn each_additional_repetition_of_a_line_is_a_change() {
        assert_eq!(between("a\n", "a\na\na\n"), ["+ a", "+ a"]);
    }
}
