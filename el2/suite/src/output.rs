//! The output of a machine: the lines of its guests, and the facts that guests, hypervisor and
//! monitor state. Each line is parsed once.

use std::io::{self, Write};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Ending, Fact, HostileFact, HypervisorFact};
use doorbell_harness::process;

use crate::board::LIMIT;

/// Lines and facts that a machine has printed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    /// Lines that state no fact.
    pub(crate) lines: Vec<String>,
    /// Facts, with the number of the guest whose console the line is from. Lines have a number if
    /// several guests share the machine's console.
    pub(crate) facts: Vec<(usize, Fact)>,
}

impl Output {
    /// Runs a machine until it ends, at most for [`LIMIT`].
    pub(crate) fn of(qemu: &mut Command) -> Result<Self> {
        Self::within(qemu, LIMIT)
    }

    /// Runs a machine until it ends.
    pub(crate) fn within(qemu: &mut Command, limit: Duration) -> Result<Self> {
        let mut output = Self::default();
        process::watch(qemu, limit, |line| output.line(line))?;
        Ok(output)
    }

    /// Runs a machine, types `keys` at its start, and after each line the keys that `answer`
    /// returns.
    pub(crate) fn typed(
        qemu: &mut Command,
        limit: Duration,
        keys: &str,
        mut answer: impl FnMut(&str, &Self) -> String,
    ) -> Result<Self> {
        let (keyboard, mut typist) = io::pipe()?;
        typist.write_all(keys.as_bytes())?;
        let (mut output, mut typed) = (Self::default(), Ok(()));
        process::watch(qemu.stdin(keyboard), limit, |line| {
            output.line(line);
            let keys = answer(line.trim_end(), &output);
            if typed.is_ok() {
                typed = typist.write_all(keys.as_bytes());
            }
        })?;
        typed?;
        Ok(output)
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, line: &str) {
        let line = line.trim_end();
        let numbered = line.strip_prefix('[').and_then(|line| line.split_once("] "));
        let numbered = numbered.and_then(|(guest, line)| Some((guest.parse().ok()?, line)));
        let (guest, text) = numbered.unwrap_or((0, line));
        match Fact::parse(text) {
            Some(fact) => self.facts.push((guest, fact)),
            None => self.lines.push(line.into()),
        }
    }

    /// Returns the last fact of a guest of `el2/hostile`.
    pub(crate) fn hostile(&self, number: usize) -> Option<&HostileFact> {
        self.facts.iter().rev().find_map(|(guest, fact)| match fact {
            Fact::Hostile(fact) if *guest == number => Some(fact),
            _ => None,
        })
    }

    /// Returns the facts of the hypervisor.
    pub(crate) fn hypervisor(&self) -> impl DoubleEndedIterator<Item = &HypervisorFact> {
        self.facts.iter().filter_map(|(_, fact)| match fact {
            Fact::Hypervisor(fact) => Some(fact),
            _ => None,
        })
    }

    /// Checks that a guest or the hypervisor states a fact.
    pub(crate) fn must_state(&self, wanted: impl Into<Fact>) -> Result<()> {
        let wanted = wanted.into();
        let is_stated = self.facts.iter().any(|(_, fact)| *fact == wanted);
        ensure!(is_stated, "no {wanted} in {:#?}", self.facts);
        Ok(())
    }

    /// Returns the text after `before` in the last line that contains it.
    pub(crate) fn after(&self, before: &str) -> Result<&str> {
        let mut texts = self.lines.iter().rev().filter_map(|line| Some(line.split_once(before)?.1));
        texts.next().with_context(|| format!("no line contains `{before}`"))
    }

    /// Returns `true` if a line contains this text.
    pub(crate) fn contains(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }

    /// Returns how a guest's machine ended.
    pub(crate) fn ending(&self, number: usize) -> Option<Ending> {
        self.hypervisor().rev().find_map(|fact| match fact {
            HypervisorFact::Ended { guest, how } if *guest == number => Some(*how),
            _ => None,
        })
    }

    /// Returns the guests' mistakes.
    pub(crate) fn faults(&self) -> Vec<&str> {
        let faults = self.hypervisor().filter_map(|fact| match fact {
            HypervisorFact::Fault { fault, .. } => Some(&**fault),
            _ => None,
        });
        faults.collect()
    }

    /// Returns the number of moves, if none of them made a guest's GIC grow.
    pub(crate) fn moves(&self) -> u64 {
        let moves = self.hypervisor().rev().find_map(|fact| match fact {
            HypervisorFact::Moved { times, grown: 0 } => Some(*times),
            _ => None,
        });
        moves.unwrap_or(0)
    }

    /// Returns the number of interrupts of a kind, such as `PPI`, that the only guest took.
    pub(crate) fn taken(&self, kind: &str) -> Option<u64> {
        self.hypervisor().rev().find_map(|fact| match fact {
            HypervisorFact::Count { reason, times, .. } => {
                (reason.strip_suffix(" taken") == Some(kind)).then_some(*times)
            }
            _ => None,
        })
    }

    /// Checks that the only guest turned its machine off, and that it was moved at least this
    /// often.
    pub(crate) fn judge(&self, moves: u64) -> Result<()> {
        let ending = self.ending(0);
        ensure!(ending == Some(Ending::Off), "the machine ended by {ending:?}");
        ensure!(self.moves() >= moves, "{} moves, not {moves}", self.moves());
        Ok(())
    }

    /// Checks that the guests made no mistake.
    pub(crate) fn judge_faults(&self) -> Result<()> {
        let faults = self.faults();
        ensure!(faults.is_empty(), "faults: {faults:?}");
        Ok(())
    }
}
