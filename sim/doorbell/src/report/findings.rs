//! Findings, as shown on the page.

use super::anchors::Anchors;
use crate::graph::Badge;
use crate::lint::Excerpts;
use gic_firmware::lint::{self, KnownRegisters};
use gic_firmware::{Description, Finding, Severity};

/// A finding, with its box in the picture and the source text that it is about.
#[derive(Debug)]
pub(super) struct FindingCard<'f> {
    pub(super) rule: &'static str,
    pub(super) severity: &'static str,
    pub(super) summary: &'static str,
    pub(super) place: String,
    pub(super) message: &'f str,
    pub(super) help: &'static str,
    pub(super) node: Option<usize>,
    pub(super) excerpt: Option<Quotation>,
}

/// A piece of source text with a highlighted part.
#[derive(Debug)]
pub(super) struct Quotation {
    pub(super) before: String,
    pub(super) pointed_at: String,
    pub(super) after: String,
}

/// Returns all findings about a description, most severe first.
pub(super) fn judge(description: &Description, known: &KnownRegisters) -> Vec<Finding> {
    let mut findings = lint::check(description, known);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
    findings
}

/// Creates a card for each finding, in order.
pub(super) fn cards<'f>(
    findings: &'f [Finding],
    anchors: &Anchors,
    excerpts: &Excerpts,
) -> Vec<FindingCard<'f>> {
    let card = |finding: &'f Finding| FindingCard {
        rule: finding.rule.name(),
        severity: class(finding.severity()),
        summary: finding.rule.summary(),
        place: finding.origin.to_string(),
        message: &finding.message,
        help: finding.rule.help(),
        node: anchors.find(&finding.origin),
        excerpt: excerpts.text(&finding.origin).and_then(|(text, range)| {
            Some(Quotation {
                before: text.get(..range.start)?.to_owned(),
                pointed_at: text.get(range.clone())?.to_owned(),
                after: text.get(range.end..)?.to_owned(),
            })
        }),
    };
    findings.iter().map(card).collect()
}

/// Counts the findings for each box. `nodes` is the number of boxes.
pub(super) fn badges(cards: &[FindingCard<'_>], nodes: usize) -> Vec<Badge> {
    let mut badges = vec![Badge::default(); nodes];
    // The most severe finding comes first, so it determines the badge's color.
    for card in cards {
        let Some(badge) = card.node.and_then(|node| badges.get_mut(node)) else { continue };
        if badge.findings == 0 {
            badge.class = card.severity;
        }
        badge.findings += 1;
    }
    badges
}

const fn class(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}
