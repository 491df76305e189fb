//! The form of all JSON output.

use serde::Serialize;
use std::io::{self, Write};

/// Version of every JSON output that is an object. Fields may be added without a new version.
const VERSION: u32 = 1;

/// An object with the version of its format.
#[derive(Serialize)]
struct Versioned<'v, T> {
    version: u32,
    #[serde(flatten)]
    value: &'v T,
}

/// Writes an object with the version of its format.
pub fn write_object(out: impl Write, value: &impl Serialize) -> io::Result<()> {
    write(out, &Versioned { version: VERSION, value })
}

/// Writes a value whose format has a version of its own, or rows.
pub fn write(mut out: impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)
}
