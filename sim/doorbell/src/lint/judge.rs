//! Checks descriptions, one after the other or in parallel.

use super::baseline::{self, Baseline};
use super::inputs::FirmwareInput;
use super::levels::{JudgedFinding, Levels};
use super::suppression::Suppressions;
use super::text;
use crate::dts::Compilation;
use crate::print::is_animated;
use anyhow::Error;
use doorbell_inspection::Source;
use doorbell_inspection::lint::{Excerpts, place};
use gic_firmware::Finding;
use gic_firmware::lint::{self, KnownRegisters};
use indicatif::{ProgressBar, ProgressStyle};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Settings for checking a description.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    pub(super) levels: Levels,
    pub(super) known: KnownRegisters,
    pub(super) suppressions: Suppressions,
    pub(super) baseline: Option<Baseline>,
    /// How to compile sources.
    pub(super) compilation: Compilation<'a>,
    /// `true` if findings should also be rendered as text.
    pub(super) with_text: bool,
}

/// The findings for one description.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) source: String,
    /// File that findings without a position are about.
    pub(super) path: String,
    /// All findings of rules that are not allowed, including known and suppressed ones.
    pub(super) findings: Vec<JudgedFinding>,
    /// The findings that are neither known nor suppressed, as text.
    pub(super) text: Vec<String>,
    /// The reason why the description could not be read.
    pub(super) unreadable: Option<String>,
    /// `true` if the findings have been compared with a baseline.
    pub(super) has_baseline: bool,
    /// Number of findings that only the baseline contains.
    pub(super) gone: usize,
}

impl Verdict {
    /// Returns `true` if the source was read and has no findings that count.
    pub(super) fn is_clean(&self) -> bool {
        self.unreadable.is_none() && !self.findings.iter().any(JudgedFinding::counts)
    }
}

impl Judge<'_> {
    /// Checks all `inputs` in parallel. Verdicts are in input order.
    pub(super) fn all(&self, inputs: &[FirmwareInput]) -> Vec<Verdict> {
        let bar = progress_bar(inputs.len());
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::channel();
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(inputs.len());
        let mut verdicts: Vec<(usize, Verdict)> = thread::scope(|scope| {
            for _ in 0..threads {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    while let index = next.fetch_add(1, Ordering::SeqCst)
                        && let Some(input) = inputs.get(index)
                        && sender.send((index, self.input(input))).is_ok()
                    {}
                });
            }
            drop(sender);
            receiver.iter().inspect(|_| bar.inc(1)).collect()
        });
        bar.finish_and_clear();
        verdicts.sort_by_key(|(index, _)| *index);
        verdicts.into_iter().map(|(_, verdict)| verdict).collect()
    }

    /// Checks sources that describe the same machine: each by itself, and all others against the
    /// first.
    pub(super) fn same_machine(
        &self,
        one: &FirmwareInput,
        others: &[FirmwareInput],
    ) -> Vec<Verdict> {
        let first = match one.open(self.compilation) {
            Ok(first) => first,
            Err(error) => {
                let unread = std::iter::once(self.unreadable(one, &error));
                return unread.chain(others.iter().map(|other| self.input(other))).collect();
            }
        };
        let mut verdicts = vec![self.source(one, &first, Vec::new())];
        for other in others {
            verdicts.push(match other.open(self.compilation) {
                Ok(source) => {
                    let against = lint::compare(&first.description, &source.description);
                    self.source(other, &source, against)
                }
                Err(error) => self.unreadable(other, &error),
            });
        }
        verdicts
    }

    fn input(&self, input: &FirmwareInput) -> Verdict {
        match input.open(self.compilation) {
            Ok(source) => self.source(input, &source, Vec::new()),
            Err(error) => self.unreadable(input, &error),
        }
    }

    fn unreadable(&self, input: &FirmwareInput, error: &Error) -> Verdict {
        let (source, error) = (input.name(), format!("{error:#}"));
        let text = self.with_text.then(|| text::unreadable(&source, &error)).into_iter().collect();
        let has_baseline = self.baseline.is_some();
        let path = input.path();
        Verdict { source, path, text, unreadable: Some(error), has_baseline, ..Verdict::default() }
    }

    fn source(&self, input: &FirmwareInput, source: &Source, more: Vec<Finding>) -> Verdict {
        let mut found = lint::check(&source.description, &self.known);
        found.extend(more);
        let fingerprints = place::fingerprints(found.iter());
        let entries = self.baseline.as_ref().map(|baseline| baseline.of_source(&source.name));
        let has_baseline = entries.is_some();
        let compared = baseline::compare(&entries.unwrap_or_default(), &found, source);
        let overlays = source.brought(&found, &self.known);
        let judged = found.into_iter().zip(fingerprints).zip(compared.known).zip(overlays);
        let findings: Vec<JudgedFinding> = judged
            .filter_map(|(((finding, fingerprint), known), overlay)| {
                let suppressed = self.suppressions.find(&source.name, &finding);
                let severity = self.levels.weigh(&finding)?;
                let (is_known, location) = (known.is_some(), source.locate(&finding.origin));
                Some(JudgedFinding {
                    finding,
                    severity,
                    fingerprint,
                    location,
                    overlay,
                    is_known,
                    suppressed,
                })
            })
            .collect();
        let text = if self.with_text { text(source, &findings) } else { Vec::new() };
        Verdict {
            source: source.name.clone(),
            path: input.path(),
            findings,
            text,
            unreadable: None,
            has_baseline,
            gone: compared.gone.len(),
        }
    }
}

/// Renders the findings that count.
fn text(source: &Source, findings: &[JudgedFinding]) -> Vec<String> {
    let groups = text::grouped(findings.iter().filter(|found| found.counts()));
    let origins = groups.iter().filter_map(|group| Some(&group.first()?.finding.origin));
    let excerpts = Excerpts::of(source, origins);
    let spell = |group: &Vec<&JudgedFinding>| {
        let (first, others) = group.split_first()?;
        Some(text::spell(&source.name, first, others, &excerpts))
    };
    groups.iter().filter_map(spell).collect()
}

/// Creates a progress bar. The bar is hidden for a single source, or if standard error isn't a
/// terminal.
fn progress_bar(sources: usize) -> ProgressBar {
    if sources < 2 || !is_animated() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} descriptions");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(sources as u64).with_style(style)
}
