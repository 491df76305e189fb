//! Output, both for people and for programs.

use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

/// The command's standard output.
pub(crate) type Output = BufWriter<StdoutLock<'static>>;

/// Prints a value to standard output as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    text(|out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        writeln!(out)
    })
}

/// Calls `write` with standard output, then flushes it.
///
/// # Errors
/// Returns an error if the output could not be written. A closed pipe is not an error, because the
/// reader has closed it on purpose.
pub(crate) fn text(write: impl FnOnce(&mut Output) -> io::Result<()>) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = write(&mut out).and_then(|()| out.flush());
    quiet_if_closed(written).context("cannot write the output")
}

/// Width used when the output isn't a terminal, in columns.
const USUAL_WIDTH: usize = 100;
/// Minimum width, which is also used for narrower terminals.
const LEAST_WIDTH: usize = 60;

/// Returns the width of standard output, in columns.
pub(crate) fn width() -> usize {
    let terminal = terminal_size::terminal_size_of(io::stdout());
    terminal.map_or(USUAL_WIDTH, |(width, _)| usize::from(width.0).max(LEAST_WIDTH))
}

/// Wraps a sentence to the width of the terminal, breaking it between words.
pub(crate) fn wrapped(sentence: &str) -> String {
    let options = textwrap::Options::new(width())
        .subsequent_indent("    ")
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(sentence, options)
}

/// Converts the result of writing output. A closed pipe counts as success.
pub(crate) fn quiet_if_closed(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Prints a message to the user on standard error. Failures are ignored.
pub(crate) fn tell(what: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "doorbell: {what}");
}
