//! Litmus tests of compiled code: their locations, threads and outcomes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::assembly::Assembly;
use crate::compile::Target;
use crate::heap::{self, Bytes, Heap};
use crate::litmus::{self, Initial, Weakening};
use crate::machine::Machine;
use crate::state::{Line, Location, Step};

/// A call of a probe with arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The probe.
    pub probe: &'static str,
    /// Arguments.
    pub arguments: &'static [Argument],
}

/// An argument of a probe.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// The address of the object with this name.
    Object(&'static str),
    /// A number.
    Number(u64),
}

/// A word of a test.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// Name.
    pub name: &'static str,
    /// A call whose last access outside of the stack accesses the word, or `None` for data that
    /// only the test's own steps access.
    pub found_by: Option<Call>,
    /// Initial value.
    pub value: u64,
    /// Bits that no thread changes, which are not judged.
    pub constant: u64,
    /// `true` if the word is judged. Other words only have their initial value, and threads that
    /// change them don't observe each other's changes.
    pub is_shared: bool,
}

/// A step of a thread.
#[derive(Clone, Copy, Debug)]
pub enum Does {
    /// Calls a probe, and keeps the result under this name unless it is empty.
    Calls(Call, &'static str),
    /// Stores a number to a word, without ordering.
    Writes(&'static str, u64),
    /// Loads a word without ordering, and keeps the value under this name.
    Reads(&'static str, &'static str),
    /// Ends the thread if the result of this name is 0.
    Requires(&'static str),
}

/// A test.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Name.
    pub name: &'static str,
    /// The package whose code is judged.
    pub package: &'static str,
    /// Words.
    pub words: &'static [Word],
    /// Targets for which paths with a failing compare-and-swap are also followed. Such a path still
    /// ends where a loop starts over.
    pub fails: &'static [Target],
    /// Targets for which all of the test's verdicts, including those with weaker orderings, take
    /// only a few seconds of CPU time.
    pub quick: &'static [Target],
    /// Other targets for which the test is judged.
    pub slow: &'static [Target],
    /// Threads.
    pub threads: &'static [&'static [Does]],
    /// The outcome that must never happen.
    pub forbidden: &'static str,
    /// An outcome that must be possible, so that the forbidden one is not just unreachable.
    pub possible: &'static str,
}

/// Names an object.
pub const fn object(name: &'static str) -> Argument {
    Argument::Object(name)
}

/// Creates a call.
pub const fn call(probe: &'static str, arguments: &'static [Argument]) -> Call {
    Call { probe, arguments }
}

/// A word that threads share.
pub const fn shared(name: &'static str, found_by: Call, value: u64) -> Word {
    Word { name, found_by: Some(found_by), value, constant: 0, is_shared: true }
}

/// A word that only has a known value.
pub const fn fixed(name: &'static str, found_by: Call, value: u64) -> Word {
    Word { name, found_by: Some(found_by), value, constant: 0, is_shared: false }
}

/// Data that a sender writes and a handler reads.
pub const DATA: Word =
    Word { name: "data", found_by: None, value: 0, constant: 0, is_shared: true };

/// Targets with `LDAPR`, for tests that are quick on both.
pub const EVERY: &[Target] = &[Target::Lse, Target::Rcpc];

/// Targets without LSE.
pub const EXCLUSIVES: &[Target] = &[Target::V8, Target::Rcpc];

/// All targets.
pub const ALL: &[Target] = &[Target::V8, Target::Rcpc, Target::Lse];

/// A translated test.
#[derive(Debug)]
pub struct Translated {
    case: Case,
    locations: Vec<Initial>,
    threads: Vec<Vec<Line>>,
    /// `true` if a path was cut off because its loop exceeded its bound.
    pub is_bounded: bool,
}

impl Case {
    /// Translates the test's functions, which were compiled for `target`.
    ///
    /// # Errors
    /// Fails if a function contains code that the translator doesn't support.
    pub fn translate(&self, assembly: &Assembly, target: Target) -> Result<Translated> {
        let mut heap = Heap::default();
        let mut memory = Bytes::new();
        let (mut shared, mut found): (Vec<Initial>, _) = (Vec::new(), BTreeMap::new());
        for word in self.words {
            let Some(call) = word.found_by else {
                let address = heap.object(word.name);
                let name = word.name.to_owned();
                let location = Location { name, address, bytes: 8, constant: (0, 0) };
                shared.push((location, word.value));
                continue;
            };
            let steps = [call.step(&mut heap, "")];
            let latest = Machine::new(assembly, &mut heap, &[], &steps).run(&memory)?;
            let (address, bytes) =
                latest.with_context(|| format!("`{}` accesses no word", call.probe))?;
            let other = found.insert(address, word);
            ensure!(
                other.is_none_or(|other| !other.is_shared),
                "{} and another shared word are the same",
                word.name
            );
            let name = word.name.to_owned();
            let constant = (word.constant, word.value & word.constant);
            let location = Location { name, address, bytes, constant };
            heap::store(&mut memory, address, bytes, word.value);
            if word.is_shared {
                shared.push((location, word.value));
            }
        }
        let locations: Vec<Location> =
            shared.iter().map(|(location, _)| location.clone()).collect();
        let (mut threads, mut is_bounded) = (Vec::new(), false);
        for thread in self.threads {
            let steps: Vec<Step> = thread.iter().map(|does| does.step(&mut heap)).collect();
            let mut machine = Machine::new(assembly, &mut heap, &locations, &steps);
            machine.fails = self.fails.contains(&target);
            let (lines, is_cut) = machine.translate(&memory)?;
            is_bounded |= is_cut;
            threads.push(lines);
        }
        Ok(Translated { case: *self, locations: shared, threads, is_bounded })
    }
}

impl Call {
    fn step(&self, heap: &mut Heap, result: &str) -> Step {
        let value = |argument: &Argument| match argument {
            Argument::Object(name) => heap.object(name),
            Argument::Number(number) => *number,
        };
        let arguments = self.arguments.iter().map(value).collect();
        Step::Call(self.probe.to_owned(), arguments, result.to_owned())
    }
}

impl Does {
    fn step(&self, heap: &mut Heap) -> Step {
        match self {
            Self::Calls(call, result) => call.step(heap, result),
            Self::Writes(word, value) => Step::Write((*word).to_owned(), *value),
            Self::Reads(word, result) => Step::Read((*word).to_owned(), (*result).to_owned()),
            Self::Requires(result) => Step::Require((*result).to_owned()),
        }
    }
}

impl Translated {
    /// Writes the litmus test for the forbidden outcome, optionally with one instruction weakened.
    ///
    /// # Errors
    /// Fails if a thread needs too many registers.
    pub fn forbidden(&self, weakened: Option<&Weakening>) -> Result<String> {
        self.write(self.case.forbidden, weakened)
    }

    /// Writes the litmus test for the outcome that must be possible.
    ///
    /// # Errors
    /// Fails if a thread needs too many registers.
    pub fn possible(&self) -> Result<String> {
        self.write(self.case.possible, None)
    }

    fn write(&self, condition: &str, weakened: Option<&Weakening>) -> Result<String> {
        litmus::write(self.case.name, &self.locations, &self.threads, condition, weakened)
    }

    /// Returns all weakenings of a single ordering.
    pub fn weakenings(&self) -> Vec<Weakening> {
        litmus::weakenings(&self.threads)
    }
}
