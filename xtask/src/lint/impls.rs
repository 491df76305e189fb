//! Finds types whose methods are spread over many files: their parts should be types of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use doorbell_harness::source;
use doorbell_harness::workspace::Workspace;

/// Maximum number of files with inherent methods of a type, the type's own file among them.
const MOST: usize = 3;
/// Names of files and folders of tests, whose methods don't count.
const TESTS: [&str; 3] = ["tests", "tests.rs", "interleavings"];

/// Returns the types with inherent methods in too many files.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        let mut files = Vec::new();
        for file in package.rust_files()? {
            let code = source::code_only(&fs::read_to_string(&file)?);
            files.push((workspace.relative(&file).to_owned(), code));
        }
        findings.extend(spread(&files));
    }
    Ok(findings)
}

/// Returns a finding for each type with methods in more than [`MOST`] files.
fn spread(files: &[(PathBuf, String)]) -> Vec<String> {
    let names = |keywords: &'static [&str]| {
        files.iter().flat_map(move |(file, code)| {
            let names = code.lines().filter_map(move |line| name_after(line, keywords));
            names.map(|name| (name, file.as_path()))
        })
    };
    let mut defined: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
    for (name, file) in names(&["struct ", "enum ", "union "]) {
        defined.entry(name).or_default().push(file);
    }
    let mut methods: BTreeMap<(&str, &Path), BTreeSet<&Path>> = BTreeMap::new();
    for (name, file) in names(&["impl"]) {
        let is_test = file.iter().any(|part| TESTS.iter().any(|test| part == *test));
        // Of several types with this name, the one that is defined closest.
        let shared = |at: &&&Path| {
            let [at, file] = [**at, file].map(|it| it.with_extension(""));
            at.iter().zip(&file).take_while(|(a, b)| a == b).count()
        };
        if let Some(at) = defined.get(name).and_then(|at| at.iter().max_by_key(shared))
            && !is_test
        {
            methods.entry((name, at)).or_default().insert(file);
        }
    }
    methods.retain(|_, files| files.len() > MOST);
    let finding = |((name, at), files): (&(&str, &Path), &BTreeSet<&Path>)| {
        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        format!("{}: {name} has methods in {}", at.display(), files.join(", "))
    };
    methods.iter().map(finding).collect()
}

/// Returns the name of the type that this line defines, or whose inherent methods it begins.
fn name_after<'a>(line: &'a str, keywords: &[&str]) -> Option<&'a str> {
    if line.contains(" for ") && !line.contains("for<") {
        return None;
    }
    let at = line.trim_start();
    let at = at.strip_prefix("pub").map_or(at, |at| {
        at.strip_prefix('(').and_then(|at| Some(at.split_once(')')?.1)).unwrap_or(at)
    });
    let at = keywords.iter().find_map(|keyword| at.trim_start().strip_prefix(keyword))?;
    let at = if at.starts_with('<') { after_generics(at)? } else { at };
    let name = at.trim_start().split(|c: char| c != '_' && !c.is_alphanumeric()).next()?;
    (!name.is_empty()).then_some(name)
}

/// Returns the text after a list of generic parameters, or `None` if it continues on other lines.
fn after_generics(text: &str) -> Option<&str> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        depth += i32::from(c == '<');
        depth -= i32::from(c == '>' && !text[..at].ends_with('-'));
        if depth == 0 {
            return Some(&text[at + 1..]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_with_methods_in_four_files_is_found() {
        let file = |path: &str, code: &str| (PathBuf::from(path), code.to_owned());
        let mut files = vec![
            file("src/its.rs", "pub(crate) struct Its;\nimpl<T: Fn() -> u8> Its {}\n"),
            file("src/its/a.rs", "impl Its {}\nimpl Clone for Its {}\n"),
            file("src/its/b.rs", "impl super::Its {}\nimpl Its {}\n"),
            file("src/lpi/its.rs", "struct Its<'a>(&'a u8);\nimpl Its<'_> {}\n"),
            file("src/its/tests/c.rs", "impl Its {}\n"),
        ];
        assert_eq!(spread(&files), [""; 0]);
        files.push(file("src/its/d.rs", "impl Its {}\n"));
        let [found] = &spread(&files)[..] else { panic!("not one finding") };
        assert_eq!(
            found,
            "src/its.rs: Its has methods in src/its/a.rs, src/its/b.rs, src/its/d.rs, src/its.rs"
        );
    }
}
