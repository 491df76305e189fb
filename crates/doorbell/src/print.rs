//! Output for people and programs.

use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, presets};
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

/// An empty table with a header.
pub(crate) fn table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}
