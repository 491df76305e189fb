//! Output, both for people and for programs.

mod color;

use anyhow::{Context, Result};
use doorbell_inspection::json;
use serde::Serialize;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, fs};

pub(crate) use color::{ColorWhen, emphasized, is_animated, is_styled};

/// The command's standard output.
pub(crate) type Output = BufWriter<Box<dyn Write>>;

static IS_SILENT: AtomicBool = AtomicBool::new(false);

/// The form of a command's output.
#[derive(Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Makes the process print nothing to standard output.
pub(crate) fn silence() {
    IS_SILENT.store(true, Ordering::Relaxed);
}

/// Prints an object as JSON, with the version of its format, or as text.
pub(crate) fn object(
    is_json: bool,
    value: &impl Serialize,
    write: impl FnOnce(&mut Output) -> io::Result<()>,
) -> Result<()> {
    if is_json { text(|out| json::write_object(out, value)) } else { text(write) }
}

/// Prints rows as a JSON array, or as text.
pub(crate) fn rows(
    is_json: bool,
    rows: &[impl Serialize],
    write: impl FnOnce(&mut Output) -> io::Result<()>,
) -> Result<()> {
    if is_json { json(&rows) } else { text(write) }
}

/// Prints a value to standard output as JSON. The value's format must have a version of its own,
/// like that of SARIF.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    text(|out| json::write(out, value))
}

/// Calls `write` with standard output, then flushes it.
///
/// # Errors
/// Returns an error if the output could not be written. A closed pipe is not an error, because the
/// reader has closed it on purpose.
pub(crate) fn text(write: impl FnOnce(&mut Output) -> io::Result<()>) -> Result<()> {
    let silent = IS_SILENT.load(Ordering::Relaxed);
    let out: Box<dyn Write> =
        if silent { Box::new(io::sink()) } else { Box::new(io::stdout().lock()) };
    let mut out = BufWriter::new(out);
    let written = write(&mut out).and_then(|()| out.flush());
    quiet_if_closed(written).context("cannot write the output")
}

/// Writes a text to a file, or to standard output without one.
pub(crate) fn to_file(path: Option<&Path>, contents: &str) -> Result<()> {
    match path {
        None => text(|out| out.write_all(contents.as_bytes())),
        Some(path) => {
            fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
        }
    }
}

/// Width of sentences when the output isn't a terminal, in columns.
const USUAL_WIDTH: usize = 100;
/// Minimum width, which is also used for narrower terminals.
const LEAST_WIDTH: usize = 60;

/// Returns the width of standard output in columns, or `None` if it isn't a terminal.
pub(crate) fn width() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(io::stdout())?;
    Some(usize::from(width.0).max(LEAST_WIDTH))
}

/// Wraps a sentence to the width of the terminal, breaking it between words.
pub(crate) fn wrapped(sentence: &str) -> String {
    let options = textwrap::Options::new(width().unwrap_or(USUAL_WIDTH))
        .subsequent_indent("    ")
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(sentence, options)
}

/// Formats a duration with three significant digits.
pub(crate) fn duration(nanoseconds: u64) -> String {
    const UNITS: [&str; 4] = ["ns", "µs", "ms", "s"];
    if nanoseconds < 1000 {
        return format!("{nanoseconds} ns");
    }
    let (mut whole, mut thousandths, mut unit) = (nanoseconds, 0, 0);
    while whole >= 1000 && unit + 1 < UNITS.len() {
        (whole, thousandths, unit) = (whole / 1000, whole % 1000, unit + 1);
    }
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    match whole {
        0..10 => format!("{whole}.{:02} {unit}", thousandths / 10),
        10..100 => format!("{whole}.{} {unit}", thousandths / 100),
        _ => format!("{whole} {unit}"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_printed_in_the_largest_fitting_unit() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1000, "1.00 µs"),
            (12_345, "12.3 µs"),
            (999_999, "999 µs"),
            (1_050_000, "1.05 ms"),
            (7_000_000_000_000, "7000 s"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(duration(nanoseconds), text);
        }
    }
}
