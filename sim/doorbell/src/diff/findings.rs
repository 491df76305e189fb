//! Compares the findings of `doorbell lint`.

use super::difference::{Difference, Differences, Section};
use super::sides::Two;
use crate::lint;
use gic_firmware::Finding;

/// Reports findings that only one description has. A finding whose node has moved counts as the
/// same.
pub(super) fn compare(two: Two<'_>, found: &mut Differences) {
    let changes = lint::changes(two.old, two.new);
    for finding in &changes.gone {
        found.add(difference(finding, |message| (Some(message), None)));
    }
    for finding in &changes.new {
        found.add(difference(finding, |message| (None, Some(message))));
    }
}

fn difference(
    finding: &Finding,
    sides: impl Fn(String) -> (Option<String>, Option<String>),
) -> Difference {
    let (before, after) = sides(finding.message.clone());
    Difference {
        section: Section::Findings,
        object: finding.origin.to_string(),
        was: None,
        field: Some(finding.rule.name().to_owned()),
        before,
        after,
    }
}
