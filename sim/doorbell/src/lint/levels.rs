//! The rules that the user allows or denies.

use super::rule::{ALL, LintRule};
use super::suppression::not_allowed;
use anyhow::{Result, bail};
use doorbell_inspection::Location;
use gic_firmware::{Finding, Rule, Severity};
use std::collections::BTreeSet;

/// The rules that the user has allowed or denied.
#[derive(Debug)]
pub(super) struct Levels {
    allowed: BTreeSet<Rule>,
    denied: BTreeSet<Rule>,
}

/// A finding with its effective severity.
#[derive(Debug)]
pub(super) struct JudgedFinding {
    pub(super) finding: Finding,
    pub(super) severity: Severity,
    /// Identification that stays the same if the finding's node moves.
    pub(super) fingerprint: String,
    /// Text that the finding points at, in a devicetree source.
    pub(super) location: Option<Location>,
    /// Overlay that brought the finding.
    pub(super) overlay: Option<String>,
    /// `true` if the baseline contains the finding.
    pub(super) is_known: bool,
    /// Index of the suppression that accepts the finding.
    pub(super) suppressed: Option<usize>,
}

impl JudgedFinding {
    /// Returns `true` if the finding is neither suppressed nor in the baseline.
    pub(super) const fn counts(&self) -> bool {
        !self.is_known && self.suppressed.is_none()
    }
}

impl Levels {
    /// Parses rule names, where `all` means every rule. Allowing `all` does not affect a rule
    /// denied by name, and vice versa.
    pub(super) fn of(allowed: &[String], denied: &[String]) -> Result<Self> {
        if allowed.iter().any(|name| name == LintRule::UnreadableSource.name()) {
            bail!("{}", not_allowed());
        }
        let (allowed, all_allowed) = named(allowed)?;
        let (denied, all_denied) = named(denied)?;
        let all_but = |others: &BTreeSet<Rule>| -> BTreeSet<Rule> {
            Rule::ALL.iter().copied().filter(|rule| !others.contains(rule)).collect()
        };
        Ok(Self {
            allowed: if all_allowed { all_but(&denied) } else { allowed.clone() },
            denied: if all_denied { all_but(&allowed) } else { denied },
        })
    }

    /// Returns a finding's severity under the user's levels, or `None` if its rule is allowed.
    pub(super) fn weigh(&self, finding: &Finding) -> Option<Severity> {
        let rule = finding.rule;
        let severity =
            if self.denied.contains(&rule) { Severity::Error } else { finding.severity() };
        (!self.allowed.contains(&rule)).then_some(severity)
    }
}

/// Returns the named rules about descriptions, and whether `all` is among the names.
fn named(names: &[String]) -> Result<(BTreeSet<Rule>, bool)> {
    let mut rules = BTreeSet::new();
    for name in names.iter().filter(|name| *name != ALL) {
        if let LintRule::Description(rule) = LintRule::named(name)? {
            rules.insert(rule);
        }
    }
    Ok((rules, names.iter().any(|name| name == ALL)))
}
