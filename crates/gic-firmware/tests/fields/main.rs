//! Compares the tables of properties and fields in `read.md` with what the readers read: a
//! property or a field is read if another value in its place leads to another description.

#[expect(dead_code, reason = "the module also serves the tests of the readers")]
#[path = "../it/acpi/bytes.rs"]
mod bytes;
#[path = "../it/lint/dts.rs"]
mod dts;
mod properties;
mod structures;

use gic_firmware::lint::{KnownRegisters, check};
use gic_firmware::{Description, Finding, Rule};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Returns what a description states and what is wrong with it.
fn judged(description: Description) -> (Description, Vec<Finding>) {
    let findings = check(&description, &KnownRegisters::default());
    (description, findings)
}

/// The rules whose findings name each property or field.
type Table = BTreeMap<String, BTreeSet<&'static str>>;

/// Reads the table below this heading. Each row has a property or field, its readers, and its rules
/// or the reason why it has none.
fn listed(heading: &str) -> Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fields/read.md");
    let text = fs::read_to_string(path).expect("the document");
    let (_, section) = text.split_once(&format!("\n### {heading}\n")).expect("the heading");
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    let row = |line: &str| {
        let [_, name, readers, rules, _] = line.split('|').collect::<Vec<_>>()[..] else {
            panic!("{line} does not have three cells");
        };
        let name = quoted(name).next().expect("a name").to_owned();
        let source = |reader: &str| format!("{}/src/{reader}.rs", env!("CARGO_MANIFEST_DIR"));
        let mut sources =
            quoted(readers).map(|reader| fs::read_to_string(source(reader)).expect("a source"));
        let is_field = name.contains('+');
        assert!(sources.all(|text| is_field || text.contains(&format!("\"{name}\""))), "{line}");
        let named: BTreeSet<_> = quoted(rules).collect();
        assert!(!named.is_empty() || rules.trim().contains(' '), "{line} has no reason");
        let known = |name| Rule::named(name).map(Rule::name).expect("a rule");
        (name, named.into_iter().map(known).collect())
    };
    lines.take_while(|line| line.starts_with('|')).skip(2).map(row).collect()
}

/// Compares the table below this heading with what was read.
fn expect_listed(heading: &str, read: &Table) {
    let listed = listed(heading);
    let missing: Vec<_> = read.iter().filter(|row| listed.get(row.0) != Some(row.1)).collect();
    assert!(missing.is_empty(), "not in the table: {missing:#?}");
    let surplus: Vec<_> = listed.keys().filter(|name| !read.contains_key(*name)).collect();
    assert!(surplus.is_empty(), "not read: {surplus:?}");
}

/// Returns the words in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}
