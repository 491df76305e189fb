//! Suppressions: findings that the user accepts, each with a reason.

use super::rule::{ALL, allowed};
use anyhow::{Context, Result, bail};
use doorbell_inspection::lint::{Row, place};
use gic_firmware::Origin;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Text between a suppression and its reason. Property names may contain `#`, but no blanks.
const REASON: &str = " # ";

/// An accepted finding: `RULE@WHERE # REASON`.
#[derive(Debug)]
pub(super) struct Suppression {
    rule: &'static str,
    /// Place as printed, with or without the source, the property and addresses; `None` for all
    /// places.
    wanted: Option<String>,
    reason: Option<String>,
    /// The suppression as written, and its file and line.
    written: String,
    is_used: AtomicBool,
}

/// All suppressions of a run.
#[derive(Debug, Default)]
pub(super) struct Suppressions(Vec<Suppression>);

impl Suppressions {
    /// Reads suppressions from values of `--allow` and from files. Returns the other values, which
    /// are names of rules.
    pub(super) fn read(values: &[String], files: &[PathBuf]) -> Result<(Self, Vec<String>)> {
        let (mut all, mut rules) = (Vec::new(), Vec::new());
        for value in values {
            if value.contains('@') || value.contains(REASON) {
                all.push(Suppression::parse(value, format!("--allow {value:?}"))?);
            } else {
                rules.push(value.clone());
            }
        }
        for file in files {
            read(file, &mut all)?;
        }
        Ok((Self(all), rules))
    }

    /// Returns the index of the first suppression of a finding, and marks all of them as used.
    pub(super) fn find(&self, row: &Row) -> Option<usize> {
        let mut first = None;
        for (index, one) in self.0.iter().enumerate() {
            if one.suppresses(row) {
                one.is_used.store(true, Ordering::SeqCst);
                first = first.or(Some(index));
            }
        }
        first
    }

    /// Returns the reason of the suppression with this index.
    pub(super) fn reason(&self, index: usize) -> Option<&str> {
        self.0.get(index)?.reason.as_deref()
    }

    /// Returns complaints about suppressions without a reason, and about those that match no
    /// finding in any of the `sources`.
    pub(super) fn complaints(&self, sources: &[&str]) -> Vec<String> {
        let mut complaints = Vec::new();
        for one in &self.0 {
            let mut complain = |what| complaints.push(format!("{}: {what}", one.written));
            if one.reason.is_none() {
                complain("the suppression has no reason; write it after \" # \"");
            }
            if !one.is_used.load(Ordering::SeqCst) && one.is_about(sources) {
                complain("the suppression matches no finding");
            }
        }
        complaints
    }
}

fn read(file: &Path, all: &mut Vec<Suppression>) -> Result<()> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            let written = format!("{name}:{number}");
            all.push(Suppression::parse(line, written.clone()).with_context(|| written)?);
        }
    }
    Ok(())
}

impl Suppression {
    fn parse(text: &str, written: String) -> Result<Self> {
        let (what, reason) = match text.split_once(REASON) {
            Some((what, reason)) => (what, Some(reason.trim()).filter(|reason| !reason.is_empty())),
            None => (text.strip_suffix(REASON.trim_end()).unwrap_or(text), None),
        };
        let (rule, wanted) = match what.trim().split_once('@') {
            Some((rule, wanted)) => (rule, Some(wanted.trim())),
            None => (what.trim(), None),
        };
        let rule = match rule {
            ALL => bail!("`{ALL}` names no rule to suppress; name one"),
            name => allowed(name)?.name,
        };
        if wanted == Some("") {
            bail!("{what:?} names no place after the @");
        }
        let (wanted, reason) = (wanted.map(str::to_owned), reason.map(str::to_owned));
        Ok(Self { rule, wanted, reason, written, is_used: AtomicBool::new(false) })
    }

    fn suppresses(&self, row: &Row) -> bool {
        let is_place = |wanted: &String| {
            let inside = wanted.strip_prefix(&row.source).and_then(|rest| rest.strip_prefix(": "));
            is_at(wanted, &row.origin) || inside.is_some_and(|wanted| is_at(wanted, &row.origin))
        };
        row.rule.name == self.rule && self.wanted.as_ref().is_none_or(is_place)
    }

    /// Returns `false` if the place names a source that is not one of `sources`.
    fn is_about(&self, sources: &[&str]) -> bool {
        let Some(wanted) = &self.wanted else { return true };
        let first = place::split(wanted).0;
        let names_source = !first.starts_with('/') && place::split(wanted).1.starts_with('/');
        !names_source || sources.contains(&first)
    }
}

fn is_at(wanted: &str, origin: &Origin) -> bool {
    let Some(place) = origin.place() else { return wanted == origin.to_string() };
    if place::names(wanted, place) {
        return true;
    }
    let (wanted, item) = place::split(wanted);
    item == origin.item() && place::names(wanted, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(source: &str) -> Row {
        let origin = Origin::new("/soc@0/its@8080000".into(), "#msi-cells");
        Row::new(source, gic_firmware::Rule::ItsMsiCells.into(), origin, String::new())
    }

    fn suppression(text: &str) -> Result<Suppression> {
        Suppression::parse(text, text.to_owned())
    }

    #[test]
    fn a_suppression_matches_full_and_shortened_places() {
        for place in [
            "/soc@0/its@8080000: #msi-cells",
            "/soc@0/its@8080000",
            "/soc/its",
            "/soc/its: #msi-cells",
            "a.dtb: /soc/its@8080000: #msi-cells",
            "a.dtb: /soc/its",
        ] {
            let one = suppression(&format!("its-msi-cells@{place} # its driver is our own"));
            let one = one.unwrap();
            assert_eq!(one.reason.as_deref(), Some("its driver is our own"));
            assert!(one.suppresses(&finding("a.dtb")), "{place}");
        }
        for other in ["/soc/its: reg", "/soc", "/soc/its@9080000", "b.dtb: /soc/its", "its"] {
            let one = suppression(&format!("its-msi-cells@{other}")).unwrap();
            assert!(!one.suppresses(&finding("a.dtb")), "{other}");
        }
        assert!(!suppression("mbi-range@/soc/its").unwrap().suppresses(&finding("a.dtb")));
    }

    #[test]
    fn unusable_suppressions_are_refused() {
        for text in ["its-msi-cell@/soc", "all@/soc", "its-msi-cells@", "unreadable-source@a"] {
            assert!(suppression(text).is_err(), "{text}");
        }
    }

    #[test]
    fn suppressions_without_a_reason_or_a_match_are_reported() {
        let about = |lines: &[&str], sources: &[&str]| {
            let all = Suppressions(lines.iter().map(|line| suppression(line).unwrap()).collect());
            all.find(&finding("a.dtb"));
            all.complaints(sources).len()
        };
        let (used, unused) = ("its-msi-cells@/soc/its # why", "its-msi-cells@/b # why");
        assert_eq!(about(&[used, "its-msi-cells # why"], &["a.dtb"]), 0, "both match");
        assert_eq!(about(&["its-msi-cells@/soc/its"], &["a.dtb"]), 1);
        assert_eq!(about(&["its-msi-cells@/b", unused], &["a.dtb"]), 3);
        let elsewhere = "its-msi-cells@c.dtb: /b # why";
        assert_eq!((about(&[elsewhere], &["a.dtb"]), about(&[elsewhere], &["c.dtb"])), (0, 1));
    }
}
