//! The rules that the user allows or denies.

use anyhow::{Result, anyhow};
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
}

impl Levels {
    /// Parses rule names, where `all` means every rule. Allowing `all` does not affect a rule
    /// denied by name, and vice versa.
    pub(super) fn of(allowed: &[String], denied: &[String]) -> Result<Self> {
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

    /// Applies the user's levels to a finding. Returns `None` if its rule is allowed.
    pub(super) fn weigh(&self, finding: Finding) -> Option<JudgedFinding> {
        let rule = finding.rule;
        let severity =
            if self.denied.contains(&rule) { Severity::Error } else { finding.severity() };
        (!self.allowed.contains(&rule)).then_some(JudgedFinding { finding, severity })
    }
}

fn named(names: &[String]) -> Result<(BTreeSet<Rule>, bool)> {
    let one = names.iter().filter(|name| *name != "all");
    let rules = one.map(|name| rule(name)).collect::<Result<BTreeSet<_>>>()?;
    Ok((rules, names.iter().any(|name| name == "all")))
}

/// Returns the rule with this name.
pub(super) fn rule(name: &str) -> Result<Rule> {
    Rule::named(name)
        .ok_or_else(|| anyhow!("no rule is named {name:?}; `doorbell lint --rules` lists them"))
}
