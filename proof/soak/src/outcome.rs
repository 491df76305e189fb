//! The outcome of a slice.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The work that a slice has done. A slice that fails panics instead.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Number of signals that were judged.
    pub(crate) messages: u64,
    /// The dimensions that the seed selected.
    pub(crate) dimensions: String,
    /// Other counts, by name.
    pub(crate) counts: BTreeMap<String, u64>,
}

impl Outcome {
    pub(crate) fn new(dimensions: String) -> Self {
        Self { dimensions, ..Self::default() }
    }

    /// Adds to a count.
    pub(crate) fn count(&mut self, name: &str, more: u64) {
        *self.counts.entry(name.into()).or_default() += more;
    }
}
