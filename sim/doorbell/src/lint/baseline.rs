//! Baselines: findings of an earlier run, which do not decide the exit status.

use super::rule::UNREADABLE;
use anyhow::{Context, Result};
use doorbell_inspection::lint::{BaselineState, Excerpts, Row, place, rows};
use doorbell_inspection::{Raw, Source};
use gic_firmware::lint::{self, KnownRegisters};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Component, Path};

/// The findings of an earlier run, as `--json` prints them.
#[derive(Debug)]
pub(super) struct Baseline(Vec<KnownFinding>);

/// A finding of an earlier run. Other fields of the output are ignored.
#[derive(Clone, Debug, Deserialize)]
struct KnownFinding {
    source: String,
    rule: String,
    #[serde(rename = "where")]
    place: String,
    message: String,
}

impl From<&Row> for KnownFinding {
    fn from(row: &Row) -> Self {
        Self {
            source: row.source.clone(),
            rule: row.rule.name.to_owned(),
            place: row.origin.to_string(),
            message: row.message.clone(),
        }
    }
}

impl Baseline {
    /// Reads the output of `doorbell lint --json` from a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let mut known: Vec<KnownFinding> = serde_json::from_str(&text)
            .with_context(|| format!("{name} is not the output of `doorbell lint --json`"))?;
        known.retain(|one| one.rule != UNREADABLE.name);
        Ok(Self(known))
    }

    /// Marks which of a source's findings the baseline has. Returns the number of its other
    /// findings about the source.
    pub(super) fn mark(&self, rows: &mut [Row], source: &Source) -> usize {
        let here = self.0.iter().filter(|one| is_same_file(&one.source, &source.name));
        let (known, gone) = compare(&here.cloned().collect::<Vec<_>>(), rows, source);
        for (row, known) in rows.iter_mut().zip(known) {
            let state = if known { BaselineState::Unchanged } else { BaselineState::New };
            row.baseline = Some(state);
        }
        gone.len()
    }

    /// Returns one of the baseline's sources if the baseline has no entry for any of `sources`.
    pub(super) fn stranger(&self, sources: &[&str]) -> Option<&str> {
        let is_here =
            |one: &KnownFinding| sources.iter().any(|source| is_same_file(&one.source, source));
        let first = self.0.first().map(|one| one.source.as_str());
        first.filter(|_| !self.0.iter().any(is_here))
    }
}

/// Returns `true` if two paths are equal, or if one consists of the other's last components.
fn is_same_file(one: &str, other: &str) -> bool {
    let parts = |path| {
        let all = Path::new(path).components().rev();
        all.filter(|part| !matches!(part, Component::CurDir | Component::RootDir))
    };
    let (mut one, mut other) = (parts(one).peekable(), parts(other).peekable());
    one.peek().is_some()
        && other.peek().is_some()
        && one.zip(other).all(|(one, other)| one == other)
}

/// Determines which of a source's findings are also in `known`, and the indices of the others in
/// `known`. Each entry matches at most one finding: preferably one with the same message, otherwise
/// one at the same place, otherwise one whose place differs only in addresses. An entry whose node
/// still exists has not moved, so it never matches in this last way.
fn compare(known: &[KnownFinding], rows: &[Row], source: &Source) -> (Vec<bool>, Vec<usize>) {
    let found: Vec<KnownFinding> = rows.iter().map(KnownFinding::from).collect();
    let (mut is_known, mut open) = (vec![false; rows.len()], (0..known.len()).collect::<Vec<_>>());
    let keys: [fn(&KnownFinding) -> [String; 3]; 3] = [
        |one| [one.rule.clone(), one.place.clone(), one.message.clone()],
        |one| [one.rule.clone(), one.place.clone(), String::new()],
        |one| {
            let (place, item) = place::split(&one.place);
            [place::shared_part(&one.rule, place, item), String::new(), String::new()]
        },
    ];
    let mut fixed = Vec::new();
    for (step, key) in keys.iter().enumerate() {
        if step == 2 {
            (fixed, open) = existing(known, &open, source);
        }
        let mut left = HashMap::<_, Vec<usize>>::new();
        for index in open.drain(..).rev() {
            left.entry(known.get(index).map(key)).or_default().push(index);
        }
        for (one, is_known) in found.iter().zip(&mut is_known).filter(|(_, known)| !**known) {
            *is_known = left.get_mut(&Some(key(one))).and_then(Vec::pop).is_some();
        }
        open = left.into_values().flatten().collect();
        open.sort_unstable();
    }
    open.extend(fixed);
    (is_known, open)
}

/// Divides entries into those whose node still exists in a devicetree and the others. Offsets in
/// ACPI tables are not names, so no structure of a table counts as the same.
fn existing(known: &[KnownFinding], open: &[usize], source: &Source) -> (Vec<usize>, Vec<usize>) {
    if !matches!(source.raw, Raw::Devicetree(_)) {
        return (Vec::new(), open.to_vec());
    }
    let place = |index: &usize| {
        let place = known.get(*index).map_or("", |one| place::split(&one.place).0);
        place::origin(place)
    };
    let origins: Vec<_> = open.iter().map(place).collect();
    let excerpts = Excerpts::of(source, &origins);
    open.iter().partition(|index| excerpts.text(&place(index)).is_some())
}

/// Findings that only one of two descriptions has.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) gone: Vec<Row>,
    pub(crate) new: Vec<Row>,
}

/// Returns the findings that only one of two descriptions has.
pub(crate) fn changes(old: &Source, new: &Source) -> Changes {
    let check = |source: &Source| {
        let registers = KnownRegisters::default();
        rows(source, lint::check(&source.description, &registers), &registers)
    };
    let (before, mut after) = (check(old), check(new));
    let known: Vec<_> = before.iter().map(KnownFinding::from).collect();
    let (mut is_known, gone) = compare(&known, &after, new);
    let gone = gone.iter().filter_map(|index| before.get(*index).cloned()).collect();
    after.retain(|_| !is_known.remove(0));
    Changes { gone, new: after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_match_by_their_last_path_components() {
        for (one, other) in [
            ("build/a.dtb", "build/a.dtb"),
            ("./build/a.dtb", "build/a.dtb"),
            ("/home/me/boards/build/a.dtb", "build/a.dtb"),
            ("a.dtb", "build/a.dtb"),
        ] {
            assert!(is_same_file(one, other) && is_same_file(other, one), "{one} {other}");
        }
        for (one, other) in [("old/a.dtb", "new/a.dtb"), ("a.dtb", "b.dtb"), ("", "a.dtb")] {
            assert!(!is_same_file(one, other) && !is_same_file(other, one), "{one} {other}");
        }
    }
}
