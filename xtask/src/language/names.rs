//! Names of tests and of types.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Result;

use crate::lint::{files, source};
use crate::workspace::Workspace;

/// Names that do not say what a type is.
const VAGUE: [&str; 4] = ["State", "Place", "Slot", "Gate"];

/// Measurements of names.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) median_test: usize,
    /// The number of types with each vague name.
    pub(super) vague: BTreeMap<&'static str, usize>,
}

/// Reads the names in all Rust files.
pub(super) fn read(workspace: &Workspace) -> Result<Names> {
    let mut lengths = Vec::new();
    let mut vague: BTreeMap<_, _> = VAGUE.into_iter().map(|name| (name, 0)).collect();
    for file in files::with_extensions(workspace, &["rs"])? {
        let code = source::code_only(&fs::read_to_string(&file)?);
        lengths.extend(tests(&code).map(|name| name.chars().count()));
        for name in types(&code) {
            vague.entry(name).and_modify(|count| *count += 1);
        }
    }
    lengths.sort_unstable();
    Ok(Names { median_test: lengths.get(lengths.len() / 2).copied().unwrap_or(0), vague })
}

/// Returns the names of the functions after `#[test]`, in macros too.
fn tests(code: &str) -> impl Iterator<Item = &str> {
    code.split("#[test]").skip(1).filter_map(|rest| name_after(rest, "fn "))
}

fn name_after<'a>(code: &'a str, keyword: &str) -> Option<&'a str> {
    let (_, rest) = code.split_once(keyword)?;
    rest.split(|c: char| c != '_' && !c.is_alphanumeric()).next().filter(|name| !name.is_empty())
}

/// Returns the vague names of types that the code declares.
fn types(code: &str) -> impl Iterator<Item = &'static str> {
    let words: Vec<_> = code.split(|c: char| c != '_' && !c.is_alphanumeric()).collect();
    let declared = |pair: &[&str]| {
        let is_type = pair
            .first()
            .is_some_and(|word| ["struct", "enum", "trait", "type", "union"].contains(word));
        VAGUE.into_iter().find(|name| is_type && pair.last() == Some(name))
    };
    words.windows(2).filter_map(declared).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn tests_are_named_by_their_functions() {
        let code = "#[test]\nfn one() {}\nfn none() {}\n#[test]\n#[ignore]\nfn three(a: u8) {}\n";
        assert_eq!(tests(code).collect::<Vec<_>>(), ["one", "three"]);
    }

    #[test]
    fn declarations_count_and_uses_do_not() {
        let code = "struct State<T>;\nenum StateOf {}\ntype Slot = u8;\nfn f(_: State) {}\n";
        assert_eq!(types(code).collect::<Vec<_>>(), ["State", "Slot"]);
    }
}
