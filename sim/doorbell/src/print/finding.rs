//! Findings as text, like the messages of a compiler.

use super::is_styled;
use annotate_snippets::{Group, Level, Origin, Renderer};
use gic_firmware::Severity;

/// Width for formatting messages, in columns.
const WIDTH: usize = 100;

/// A finding without source text.
pub(crate) struct FindingText<'f> {
    pub(crate) severity: Severity,
    pub(crate) summary: &'f str,
    pub(crate) rule: &'f str,
    pub(crate) place: &'f str,
    pub(crate) message: &'f str,
    pub(crate) help: &'f str,
}

impl FindingText<'_> {
    /// Renders the finding.
    pub(crate) fn text(&self) -> String {
        let title = level(self.severity).primary_title(self.summary).id(self.rule);
        let group = title
            .element(Origin::path(self.place))
            .element(Level::NOTE.message(self.message))
            .element(Level::HELP.message(self.help));
        render(group)
    }
}

/// Returns the level of a message about a finding.
pub(crate) const fn level(severity: Severity) -> Level<'static> {
    match severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    }
}

/// Renders a message.
pub(crate) fn render(message: Group<'_>) -> String {
    let renderer = if is_styled() { Renderer::styled() } else { Renderer::plain() };
    renderer.term_width(WIDTH).render(&[message])
}
