//! Checks descriptions, one after the other or in parallel.

use super::excerpt::Excerpts;
use super::inputs::FirmwareInput;
use super::levels::{JudgedFinding, Levels};
use super::text;
use crate::source::Source;
use anyhow::{Error, Result};
use gic_firmware::lint::{self, KnownRegisters};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Settings for checking a description.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) levels: Levels,
    pub(super) known: KnownRegisters,
    /// `true` if findings should also be rendered as text.
    pub(super) with_text: bool,
}

/// The findings for one description.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) source: String,
    pub(super) findings: Vec<JudgedFinding>,
    /// The findings as text.
    pub(super) text: Vec<String>,
    /// The reason why the description could not be read.
    pub(super) unreadable: Option<Error>,
}

impl Judge {
    /// Checks the running machine's firmware.
    pub(super) fn running(&self) -> Result<Verdict> {
        Source::running().map(|source| self.source(&source, Vec::new()))
    }

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
    ) -> Result<Vec<Verdict>> {
        let first = open(one)?;
        let mut verdicts = vec![self.source(&first, Vec::new())];
        for other in others {
            let other = open(other)?;
            let against = lint::compare(&first.description, &other.description);
            verdicts.push(self.source(&other, against));
        }
        Ok(verdicts)
    }

    fn input(&self, input: &FirmwareInput) -> Verdict {
        match open(input) {
            Ok(source) => self.source(&source, Vec::new()),
            Err(error) => Verdict {
                source: name(input),
                findings: Vec::new(),
                text: Vec::new(),
                unreadable: Some(error),
            },
        }
    }

    fn source(&self, source: &Source, more: Vec<gic_firmware::Finding>) -> Verdict {
        let found = lint::check(&source.description, &self.known).into_iter().chain(more);
        let findings: Vec<JudgedFinding> = found.filter_map(|one| self.levels.weigh(one)).collect();
        let text = if self.with_text && !findings.is_empty() {
            let origins = findings.iter().map(|found| &found.finding.origin);
            let excerpts = Excerpts::of(source, origins);
            findings.iter().map(|found| text::spell(&source.name, found, &excerpts)).collect()
        } else {
            Vec::new()
        };
        Verdict { source: source.name.clone(), findings, text, unreadable: None }
    }
}

fn open(input: &FirmwareInput) -> Result<Source> {
    match input {
        FirmwareInput::Dtb(path) => Source::dtb(path),
        FirmwareInput::Acpi(path) => Source::acpi(path),
    }
}

fn name(input: &FirmwareInput) -> String {
    let (FirmwareInput::Dtb(path) | FirmwareInput::Acpi(path)) = input;
    path.display().to_string()
}

/// Creates a progress bar. The bar is hidden for a single source, or if standard error isn't a
/// terminal.
fn progress_bar(sources: usize) -> ProgressBar {
    if sources < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} descriptions");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(sources as u64).with_style(style)
}
