//! Positions in the text from which a devicetree or an ACPI table was compiled.

use std::fmt::Debug;
use std::ops::Range;

/// Source text of a devicetree, or of ACPI tables.
pub trait Locate: Debug {
    /// Returns the region of a property or field, or that of its node or structure if it has none.
    fn locate(&self, node: &str, property: &str) -> Option<Location>;
}

/// A region of a source. Lines and columns start at 1; columns count UTF-16 code units, as SARIF
/// does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// Path of the file.
    pub file: String,
    /// Line and column of the first character.
    pub start: (usize, usize),
    /// Position after the last character.
    pub end: (usize, usize),
    /// The lines of the region.
    pub text: String,
    /// Bytes of `text` that form the region.
    pub span: Range<usize>,
}
