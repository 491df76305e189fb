//! Checks descriptions, one after the other or in parallel.

use super::baseline::Baseline;
use super::inputs::FirmwareInput;
use super::rule::{Levels, UNREADABLE};
use super::suppression::Suppressions;
use crate::dts::Compilation;
use crate::findings;
use crate::print::is_animated;
use anyhow::Error;
use doorbell_inspection::Source;
use doorbell_inspection::lint::{BaselineState, Excerpts, Row, place, rows};
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
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) source: String,
    /// All findings of rules that are not allowed, including known and suppressed ones.
    pub(super) rows: Vec<Row>,
    /// The findings that are neither known nor suppressed, as text.
    pub(super) text: Vec<String>,
    /// `true` if the description could not be read, which is then the only finding.
    pub(super) is_unreadable: bool,
    /// Number of findings that only the baseline contains.
    pub(super) gone: usize,
}

impl Verdict {
    /// Returns the findings that count.
    pub(super) fn counting(&self) -> impl Iterator<Item = &Row> + Clone {
        self.rows.iter().filter(|row| row.counts())
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
                        && sender.send((index, self.input(input, None))).is_ok()
                    {
                    }
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
        let first = one.open(self.compilation);
        let others = others.iter().map(|other| self.input(other, first.as_ref().ok()));
        let others: Vec<_> = others.collect();
        let of_first = match &first {
            Ok(first) => self.source(one, first, Vec::new()),
            Err(error) => self.unreadable(one, error),
        };
        std::iter::once(of_first).chain(others).collect()
    }

    /// Checks a source, and compares it with `first` if this is given.
    fn input(&self, input: &FirmwareInput, first: Option<&Source>) -> Verdict {
        match input.open(self.compilation) {
            Ok(source) => {
                let against =
                    |first: &Source| lint::compare(&first.description, &source.description);
                self.source(input, &source, first.map(against).unwrap_or_default())
            }
            Err(error) => self.unreadable(input, &error),
        }
    }

    fn unreadable(&self, input: &FirmwareInput, error: &Error) -> Verdict {
        let source = input.name();
        let row = Row {
            path: input.path(),
            fingerprint: Some("unreadable-source:1".to_owned()),
            baseline: self.baseline.as_ref().map(|_| BaselineState::New),
            ..Row::new(&source, UNREADABLE, place::origin(""), format!("{error:#}"))
        };
        self.verdict(source, vec![row], &Excerpts::default(), 0)
    }

    fn source(&self, input: &FirmwareInput, source: &Source, more: Vec<Finding>) -> Verdict {
        let mut found = lint::check(&source.description, &self.known);
        found.extend(more);
        let mut rows = rows(source, found, &self.known);
        let baseline = self.baseline.as_ref();
        let gone = baseline.map_or(0, |baseline| baseline.mark(&mut rows, source));
        for row in &mut rows {
            row.path = row.overlay.clone().unwrap_or_else(|| input.path());
            row.suppressed = self.suppressions.find(row);
        }
        rows.retain_mut(|row| self.levels.weigh(row));
        let counting = rows.iter().filter(|row| self.with_text && row.counts());
        let excerpts = Excerpts::of(source, counting.map(|row| &row.origin));
        self.verdict(source.name.clone(), rows, &excerpts, gone)
    }

    fn verdict(&self, source: String, rows: Vec<Row>, excerpts: &Excerpts, gone: usize) -> Verdict {
        let is_unreadable = rows.iter().any(|row| row.rule.code == UNREADABLE.code);
        let counting = rows.iter().filter(|row| self.with_text && row.counts());
        let text = findings::texts(counting, excerpts);
        Verdict { source, rows, text, is_unreadable, gone }
    }
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
