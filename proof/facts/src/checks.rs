//! Facts from programs that perform checks: the outcome of each check, and the totals.
#![expect(missing_docs, reason = "a fact's documentation lists its fields")]

use crate::Text;
use serde::{Deserialize, Serialize};

/// Maximum length of an explanation in [`CheckFact::failed`] and [`CheckFact::skipped`], in bytes.
const LONGEST: usize = 400;

/// The outcome of a check, or the totals of all checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckFact {
    /// The check passed.
    ///
    /// - `check`: Name of the check.
    Passed { check: Text },
    /// The check failed.
    ///
    /// - `check`: Name of the check.
    /// - `why`: The expected and the actual values, as free text.
    Failed { check: Text, why: Text },
    /// The check could not be performed.
    ///
    /// - `check`: Name of the check.
    /// - `why`: The missing feature.
    Skipped { check: Text, why: Text },
    /// The number of checks with each outcome. The program reports this fact at its end.
    ///
    /// - `passed`: Checks that passed.
    /// - `failed`: Checks that failed.
    /// - `skipped`: Checks that were skipped.
    Total { passed: usize, failed: usize, skipped: usize },
}

impl CheckFact {
    /// Creates a failed check. If the explanation is too long, it is truncated so that the fact
    /// fits on one line.
    pub fn failed(check: impl Into<Text>, why: impl Into<Text>) -> Self {
        Self::Failed { check: check.into(), why: cut(why.into()) }
    }

    /// Creates a skipped check. If the explanation is too long, it is truncated so that the fact
    /// fits on one line.
    pub fn skipped(check: impl Into<Text>, why: impl Into<Text>) -> Self {
        Self::Skipped { check: check.into(), why: cut(why.into()) }
    }
}

fn cut(text: Text) -> Text {
    if text.len() <= LONGEST {
        return text;
    }
    let mut text = text.into_owned();
    text.truncate(text.floor_char_boundary(LONGEST));
    text.push('…');
    text.into()
}

#[cfg(all(test, feature = "parse"))]
mod tests {
    use super::*;
    use crate::Fact;
    use alloc::string::ToString;

    #[test]
    fn a_long_explanation_is_cut_off() {
        let why = "\"ü".repeat(1000);
        let fact = Fact::from(CheckFact::failed("a", why.clone()));
        let Some(Fact::Checks(CheckFact::Failed { why: cut, .. })) = Fact::parse(&fact.to_string())
        else {
            panic!("{fact}")
        };
        assert!(why.starts_with(cut.strip_suffix('…').unwrap()) && cut.len() > LONGEST / 2);
        let short = CheckFact::skipped("a", "b");
        assert_eq!(short, CheckFact::Skipped { check: "a".into(), why: "b".into() });
    }
}
