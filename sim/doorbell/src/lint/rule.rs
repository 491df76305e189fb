//! The rules of `doorbell lint`: the rules about descriptions, and one about unreadable sources.

use crate::wording::did_you_mean;
use anyhow::{Result, anyhow};
use gic_firmware::{Rule, Severity};

/// A rule of the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LintRule {
    /// A source cannot be read, so that nothing in it has been checked.
    UnreadableSource,
    /// A rule about descriptions.
    Description(Rule),
}

/// Name of the value that stands for all rules.
pub(super) const ALL: &str = "all";

impl LintRule {
    /// Returns all rules.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let of_descriptions = Rule::ALL.iter().copied().map(Self::Description);
        std::iter::once(Self::UnreadableSource).chain(of_descriptions)
    }

    /// Returns the rule with this name.
    pub(super) fn named(name: &str) -> Result<Self> {
        let found = Self::all().find(|rule| rule.name() == name);
        found.ok_or_else(|| {
            let meant = did_you_mean(name, Self::all().map(Self::name).chain([ALL]));
            anyhow!("no rule is named {name:?}; {meant}`doorbell lint --rules` lists them")
        })
    }

    /// Returns the stable name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::UnreadableSource => "unreadable-source",
            Self::Description(rule) => rule.name(),
        }
    }

    /// Returns the severity of a violation.
    pub(super) const fn severity(self) -> Severity {
        match self {
            Self::UnreadableSource => Severity::Error,
            Self::Description(rule) => rule.severity(),
        }
    }

    /// Returns a one-line summary of the mistake.
    pub(super) const fn summary(self) -> &'static str {
        match self {
            Self::UnreadableSource => "A source cannot be read, so nothing in it was checked.",
            Self::Description(rule) => rule.summary(),
        }
    }

    /// Returns the rationale, with an example of the fault and of its fix, in Markdown.
    pub(super) const fn explanation(self) -> &'static str {
        match self {
            Self::UnreadableSource => UNREADABLE,
            Self::Description(rule) => rule.explanation(),
        }
    }

    /// Returns advice for the author of the input.
    pub(super) const fn help(self) -> &'static str {
        match self {
            Self::UnreadableSource => {
                "Name a devicetree or its source, a dump of ACPI tables, or a folder with the \
                 tables of one machine."
            }
            Self::Description(rule) => rule.help(),
        }
    }
}

const UNREADABLE: &str = "\
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
";
