//! The rules of `doorbell lint`: the rules about descriptions, and one about unreadable sources.

use crate::findings;
use anyhow::{Result, bail};
use doorbell_inspection::lint::{Row, RuleText};
use gic_firmware::msi_types::explain::Code;
use gic_firmware::{Rule, Severity};
use std::collections::BTreeSet;

/// Name of the value that stands for all rules.
pub(super) const ALL: &str = "all";

/// The rule that a source cannot be read, so that nothing in it has been checked.
pub(super) const UNREADABLE: RuleText = RuleText {
    name: "unreadable-source",
    code: Code(1),
    severity: Severity::Error,
    summary: "A source cannot be read, so nothing in it was checked.",
    help: "Name a devicetree or its source, a dump of ACPI tables, or a folder with the tables of \
           one machine.",
    explanation: "\
A file that does not exist, is no devicetree, or is cut off has not been checked. The exit status
is 2, whatever the other sources contain. The rule cannot be allowed, and a baseline does not
contain it.

## Fault

```sh
doorbell lint board.dts # includes a file of another folder
```

## Fix

```sh
doorbell lint board.dts -I include
```
",
};

/// Returns all rules.
pub(crate) fn all() -> Vec<RuleText> {
    std::iter::once(UNREADABLE).chain(Rule::ALL.iter().map(|rule| (*rule).into())).collect()
}

/// Returns the rule with this name.
pub(super) fn named(name: &str) -> Result<RuleText> {
    findings::named(name, &all(), &[ALL], "doorbell lint")
}

/// Returns the rule with this name, which may be allowed: that about unreadable sources may not.
pub(super) fn allowed(name: &str) -> Result<RuleText> {
    match named(name)? {
        rule if rule.code != UNREADABLE.code => Ok(rule),
        RuleText { name, .. } => {
            bail!("{name} cannot be allowed: nothing in an unreadable source has been checked")
        }
    }
}

/// The rules that the user has allowed or denied.
#[derive(Debug)]
pub(super) struct Levels {
    allowed: BTreeSet<Code>,
    denied: BTreeSet<Code>,
}

impl Levels {
    /// Parses rule names, where `all` means every rule. Allowing `all` does not affect a rule
    /// denied by name, and vice versa.
    pub(super) fn of(allowed: &[String], denied: &[String]) -> Result<Self> {
        let codes = |names: &[String], rule: fn(&str) -> Result<RuleText>| {
            let names = names.iter().filter(|name| *name != ALL);
            names.map(|name| Ok(rule(name)?.code)).collect::<Result<BTreeSet<Code>>>()
        };
        let all_but = |others: &BTreeSet<Code>| -> BTreeSet<Code> {
            all().iter().map(|rule| rule.code).filter(|code| !others.contains(code)).collect()
        };
        let has_all = |names: &[String]| names.iter().any(|name| name == ALL);
        let (by_name, denied_by_name) = (codes(allowed, self::allowed)?, codes(denied, named)?);
        Ok(Self {
            allowed: if has_all(allowed) { all_but(&denied_by_name) } else { by_name.clone() },
            denied: if has_all(denied) { all_but(&by_name) } else { denied_by_name },
        })
    }

    /// Gives a finding its severity under the user's levels. Returns `false` if its rule is
    /// allowed.
    pub(super) fn weigh(&self, row: &mut Row) -> bool {
        if self.denied.contains(&row.rule.code) {
            row.severity = Severity::Error;
        }
        !self.allowed.contains(&row.rule.code)
    }
}
