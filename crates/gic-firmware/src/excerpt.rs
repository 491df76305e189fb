//! Excerpts of the input: the node or structure that a finding refers to.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::ops::Range;

/// A devicetree node as source, or an ACPI structure as a list of its named fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Excerpt {
    /// Text, which may have several lines.
    pub text: String,
    pub(crate) name: Range<usize>,
    pub(crate) properties: Vec<(String, Range<usize>)>,
    /// Fields of an ACPI structure, with their offsets in the table.
    pub(crate) offsets: Vec<(&'static str, usize)>,
}

impl Excerpt {
    /// Returns the byte range of this property or field in [`text`](Self::text). Returns the range
    /// of the name of the node or structure if it lacks the property.
    pub fn place(&self, property: &str) -> Range<usize> {
        let stated = self.properties.iter().find(|(name, _)| name == property);
        stated.map_or_else(|| self.name.clone(), |(_, place)| place.clone())
    }

    /// Returns the offset in bytes of this field in its ACPI table; `None` if the structure has no
    /// such field.
    pub fn offset(&self, field: &str) -> Option<usize> {
        self.offsets.iter().find(|(name, _)| *name == field).map(|(_, offset)| *offset)
    }

    /// Creates an excerpt that consists of a name alone.
    pub(crate) fn new(name: String) -> Self {
        Self { name: 0..name.len(), text: name, properties: Vec::new(), offsets: Vec::new() }
    }

    /// Adds a line that states the value of a field.
    pub(crate) fn field(&mut self, name: &str, value: &str) {
        self.text.push_str("\n    ");
        let start = self.text.len();
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{name}: {value}");
        self.properties.push((String::from(name), start..self.text.len()));
    }
}
