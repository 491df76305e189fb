//! Baselines: findings of an earlier run, which do not decide the exit status.

use super::rule::LintRule;
use anyhow::{Context, Result};
use doorbell_inspection::lint::{Excerpts, place};
use doorbell_inspection::{Raw, Source};
use gic_firmware::Finding;
use gic_firmware::lint::{self, KnownRegisters};
use serde::Deserialize;
use std::collections::HashMap;
use std::hash::Hash;
use std::path::{Component, Path};

/// The findings of an earlier run, as `--json` prints them.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    /// Findings by the last component of their source's path.
    by_file: HashMap<String, Vec<KnownFinding>>,
    /// Source of the first finding.
    first: Option<String>,
}

/// A finding of an earlier run. Other fields of the output are ignored.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct KnownFinding {
    source: String,
    rule: String,
    #[serde(rename = "where")]
    place: String,
    message: String,
}

impl KnownFinding {
    /// Creates the entry for a finding.
    pub(super) fn of(source: &str, finding: &Finding) -> Self {
        Self {
            source: source.to_owned(),
            rule: finding.rule.name().to_owned(),
            place: finding.origin.to_string(),
            message: finding.message.clone(),
        }
    }
}

/// Result of comparing a source's findings with those of an earlier run.
#[derive(Debug)]
pub(super) struct Comparison {
    /// For each finding, the index of the same finding in the earlier run.
    pub(super) known: Vec<Option<usize>>,
    /// The indices of findings that no longer exist.
    pub(super) gone: Vec<usize>,
}

impl Baseline {
    /// Reads the output of `doorbell lint --json` from a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        let mut rows: Vec<KnownFinding> = serde_json::from_str(&text)
            .with_context(|| format!("{name} is not the output of `doorbell lint --json`"))?;
        rows.retain(|row| row.rule != LintRule::UnreadableSource.name());
        let first = rows.first().map(|row| row.source.clone());
        let mut baseline = Self { first, ..Self::default() };
        for row in rows {
            baseline.by_file.entry(last_part(&row.source)).or_default().push(row);
        }
        Ok(baseline)
    }

    /// Returns the entries of a source.
    pub(super) fn of_source(&self, source: &str) -> Vec<KnownFinding> {
        let rows = self.by_file.get(&last_part(source)).into_iter().flatten();
        rows.filter(|row| is_same_file(&row.source, source)).cloned().collect()
    }

    /// Returns one of the baseline's sources if the baseline has no entry for any of `sources`.
    pub(super) fn stranger(&self, sources: &[&str]) -> Option<&str> {
        let is_here = sources.iter().any(|source| !self.of_source(source).is_empty());
        self.first.as_deref().filter(|_| !is_here)
    }
}

/// Returns the last component of a path.
fn last_part(path: &str) -> String {
    let name = Path::new(path).file_name();
    name.map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Returns `true` if two paths are equal, or if one consists of the other's last components.
fn is_same_file(one: &str, other: &str) -> bool {
    let parts = |path| {
        let all = Path::new(path).components();
        all.filter(|part| !matches!(part, Component::CurDir | Component::RootDir))
            .collect::<Vec<_>>()
    };
    let (one, other) = (parts(one), parts(other));
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    !short.is_empty() && long.ends_with(&short)
}

/// Determines which of a source's findings are also in `known`. Each entry matches at most one
/// finding: preferably one with the same message, otherwise one at the same place, otherwise one
/// whose place differs only in addresses. An entry whose node still exists has not moved, so it
/// never matches in this last way.
pub(super) fn compare(known: &[KnownFinding], findings: &[Finding], source: &Source) -> Comparison {
    let mut matching = Matching {
        open: (0..known.len()).collect(),
        known: vec![None; findings.len()],
        entries: known,
        findings,
    };
    matching.pair(
        |entry| (entry.rule.clone(), entry.place.clone(), entry.message.clone()),
        |found| (found.rule.name().to_owned(), found.origin.to_string(), found.message.clone()),
    );
    matching.pair(
        |entry| (entry.rule.clone(), entry.place.clone()),
        |found| (found.rule.name().to_owned(), found.origin.to_string()),
    );
    let fixed = matching.close_existing(source);
    matching.pair(
        |entry| {
            let (place, item) = place::split(&entry.place);
            place::shared_part(&entry.rule, place, item)
        },
        |found| {
            let place = found.origin.place().unwrap_or_default();
            place::shared_part(found.rule.name(), place, found.origin.item())
        },
    );
    let gone = matching.open.into_iter().chain(fixed).collect();
    Comparison { known: matching.known, gone }
}

/// Findings that only one of two descriptions has.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) gone: Vec<Finding>,
    pub(crate) new: Vec<Finding>,
}

/// Returns the findings that only one of two descriptions has.
pub(crate) fn changes(old: &Source, new: &Source) -> Changes {
    let check = |source: &Source| lint::check(&source.description, &KnownRegisters::default());
    let (before, after) = (check(old), check(new));
    let known: Vec<_> = before.iter().map(|finding| KnownFinding::of(&old.name, finding)).collect();
    let compared = compare(&known, &after, new);
    let is_new = after.into_iter().zip(compared.known).filter(|(_, known)| known.is_none());
    Changes {
        gone: compared.gone.iter().filter_map(|index| before.get(*index).cloned()).collect(),
        new: is_new.map(|(finding, _)| finding).collect(),
    }
}

/// Entries and findings that are being paired.
struct Matching<'m> {
    entries: &'m [KnownFinding],
    findings: &'m [Finding],
    /// Entries without a finding.
    open: Vec<usize>,
    known: Vec<Option<usize>>,
}

impl Matching<'_> {
    /// Pairs entries with findings of the same key, in order.
    fn pair<K: Eq + Hash>(
        &mut self,
        of_entry: impl Fn(&KnownFinding) -> K,
        of_finding: impl Fn(&Finding) -> K,
    ) {
        let mut open = HashMap::<K, Vec<usize>>::new();
        for index in self.open.drain(..).rev() {
            if let Some(entry) = self.entries.get(index) {
                open.entry(of_entry(entry)).or_default().push(index);
            }
        }
        for (found, known) in self.findings.iter().zip(&mut self.known) {
            if known.is_none() {
                *known = open.get_mut(&of_finding(found)).and_then(Vec::pop);
            }
        }
        self.open = open.into_values().flatten().collect();
        self.open.sort_unstable();
    }

    /// Removes and returns the open entries whose node still exists in a devicetree. Offsets in
    /// ACPI tables are not names, so all entries of tables stay open.
    fn close_existing(&mut self, source: &Source) -> Vec<usize> {
        if !matches!(source.raw, Raw::Devicetree(_)) {
            return Vec::new();
        }
        let place = |index: &usize| {
            let entry = self.entries.get(*index);
            place::origin(entry.map_or("", |entry| place::split(&entry.place).0))
        };
        let origins: Vec<_> = self.open.iter().map(place).collect();
        let excerpts = Excerpts::of(source, &origins);
        let exists = |index: &usize| excerpts.text(&place(index)).is_some();
        let (fixed, open) = self.open.iter().partition(|index| exists(index));
        self.open = open;
        fixed
    }
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
