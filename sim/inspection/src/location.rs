//! Positions in the text from which a devicetree or an ACPI table was compiled.

use serde::Serialize;
use std::fmt::Debug;
use std::ops::Range;

/// Source text of a devicetree, or of ACPI tables.
pub trait Locate: Debug {
    /// Returns the region of a property or field, or that of its node or structure if it has none.
    fn locate(&self, node: &str, property: &str) -> Option<Location>;
}

/// A region of a source. Lines and columns start at 1; columns count UTF-16 code units, as SARIF
/// does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Location {
    /// Path of the file.
    pub file: String,
    /// First line.
    pub line: usize,
    /// First column.
    pub column: usize,
    /// Last line.
    pub end_line: usize,
    /// Column after the last character.
    pub end_column: usize,
    /// The lines of the region.
    #[serde(skip)]
    pub text: String,
    /// Bytes of `text` that form the region.
    #[serde(skip)]
    pub span: Range<usize>,
}
