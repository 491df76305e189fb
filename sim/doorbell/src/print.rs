//! Output for people and programs.

use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

/// Standard output, while a command prints.
pub(crate) type Output = BufWriter<StdoutLock<'static>>;

/// Prints a value as JSON on standard output.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    text(|out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        writeln!(out)
    })
}

/// Prints on standard output what `write` writes, all of it before this returns.
///
/// # Errors
/// It could not be written. That a reader closed the pipe is none: it has seen what it wanted.
pub(crate) fn text(write: impl FnOnce(&mut Output) -> io::Result<()>) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = write(&mut out).and_then(|()| out.flush());
    quiet_if_closed(written).context("cannot write the output")
}

/// Columns of output that goes to no terminal.
const USUAL_WIDTH: usize = 100;
/// A narrower terminal is used as if it had as many columns.
const LEAST_WIDTH: usize = 60;

/// The columns of the terminal that standard output goes to.
pub(crate) fn width() -> usize {
    let terminal = terminal_size::terminal_size_of(io::stdout());
    terminal.map_or(USUAL_WIDTH, |(width, _)| usize::from(width.0).max(LEAST_WIDTH))
}

/// Breaks a sentence between words where it is wider than the terminal.
pub(crate) fn wrapped(sentence: &str) -> String {
    let options = textwrap::Options::new(width())
        .subsequent_indent("    ")
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(sentence, options)
}

/// The end of some output. A reader that has gone is no error.
pub(crate) fn quiet_if_closed(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Tells the user something on standard error. A closed standard error is no error.
pub(crate) fn tell(what: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "doorbell: {what}");
}
