//! Findings, as shown on the page.

use super::anchors::Anchors;
use crate::graph::Badge;
use crate::lint::Excerpts;
use gic_firmware::lint::{self, KnownRegisters};
use gic_firmware::{Description, Finding, Severity};
use std::collections::BTreeMap;

/// The findings about one place, with its box in the picture and its source text.
#[derive(Debug)]
pub(super) struct PlaceCard<'f> {
    /// Severity of the most severe finding.
    pub(super) severity: &'static str,
    pub(super) place: String,
    pub(super) node: Option<usize>,
    pub(super) excerpt: Option<Quotation>,
    pub(super) rules: Vec<RuleCard<'f>>,
}

/// The findings of one rule about a place.
#[derive(Debug)]
pub(super) struct RuleCard<'f> {
    pub(super) rule: &'static str,
    pub(super) severity: &'static str,
    pub(super) summary: &'static str,
    pub(super) help: &'static str,
    pub(super) messages: Vec<&'f str>,
}

impl PlaceCard<'_> {
    /// Returns the number of findings about this place.
    fn count(&self) -> usize {
        self.rules.iter().map(|rule| rule.messages.len()).sum()
    }
}

/// A piece of source text with a highlighted part.
#[derive(Debug)]
pub(super) struct Quotation {
    pub(super) before: String,
    pub(super) pointed_at: String,
    pub(super) after: String,
}

/// Returns all findings about a description, most severe first.
pub fn judge(description: &Description, known: &KnownRegisters) -> Vec<Finding> {
    let mut findings = lint::check(description, known);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
    findings
}

/// Returns the number of findings of a severity, and its name.
pub(super) fn count(findings: &[Finding], severity: Severity) -> (usize, &'static str) {
    let found = findings.iter().filter(|finding| finding.severity() == severity);
    (found.count(), class(severity))
}

/// Creates a card for each place, in the order of the first findings about them.
pub(super) fn cards<'f>(
    findings: &'f [Finding],
    anchors: &Anchors,
    excerpts: &Excerpts,
) -> Vec<PlaceCard<'f>> {
    let mut cards: Vec<PlaceCard<'f>> = Vec::new();
    let mut places = BTreeMap::new();
    for finding in findings {
        let place = *places.entry(&finding.origin).or_insert(cards.len());
        if place == cards.len() {
            cards.push(card(finding, anchors, excerpts));
        }
        let Some(card) = cards.get_mut(place) else { continue };
        let name = finding.rule.name();
        match card.rules.iter_mut().find(|rule| rule.rule == name) {
            Some(rule) => rule.messages.push(&finding.message),
            None => card.rules.push(RuleCard {
                rule: name,
                severity: class(finding.severity()),
                summary: finding.rule.summary(),
                help: finding.rule.help(),
                messages: vec![&finding.message],
            }),
        }
    }
    cards
}

/// Creates the card for a finding's place, without findings.
fn card<'f>(finding: &Finding, anchors: &Anchors, excerpts: &Excerpts) -> PlaceCard<'f> {
    PlaceCard {
        severity: class(finding.severity()),
        place: finding.origin.to_string(),
        node: anchors.find(&finding.origin),
        excerpt: excerpts.text(&finding.origin).and_then(|(text, range)| {
            Some(Quotation {
                before: text.get(..range.start)?.to_owned(),
                pointed_at: text.get(range.clone())?.to_owned(),
                after: text.get(range.end..)?.to_owned(),
            })
        }),
        rules: Vec::new(),
    }
}

/// Counts the findings for each box. `nodes` is the number of boxes.
pub(super) fn badges(cards: &[PlaceCard<'_>], nodes: usize) -> Vec<Badge> {
    let mut badges = vec![Badge::default(); nodes];
    // The most severe finding comes first, so it determines the badge's color.
    for card in cards {
        let Some(badge) = card.node.and_then(|node| badges.get_mut(node)) else { continue };
        if badge.findings == 0 {
            badge.class = card.severity;
        }
        badge.findings += card.count();
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
