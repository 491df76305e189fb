//! Differences, and the parts of the output that they belong to.

use serde::Serialize;

/// Maximum number of differences listed per section.
const LISTED: usize = 1000;

/// A difference between two descriptions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Difference {
    pub(super) section: Section,
    /// Name of the node, CPU or table entry: the one in the new description, if that has the
    /// object.
    pub(super) object: String,
    /// Name of the object in the old description, if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) was: Option<String>,
    /// Property or property-like name; `null` if the object itself was added or removed.
    pub(super) field: Option<String>,
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// A part of the output.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Section {
    Machine,
    Cpus,
    Gics,
    Controllers,
    Iommus,
    Routes,
    Isolation,
    Wires,
    Findings,
}

impl Section {
    /// The sections that compare objects, in the order of the output.
    pub(super) const OF_OBJECTS: [Self; 8] = [
        Self::Machine,
        Self::Cpus,
        Self::Gics,
        Self::Controllers,
        Self::Iommus,
        Self::Wires,
        Self::Routes,
        Self::Isolation,
    ];
}

/// All differences, in the form of the JSON output.
#[derive(Debug, Default, Serialize)]
pub(super) struct Differences {
    pub(super) old: String,
    pub(super) new: String,
    #[serde(rename = "differences")]
    pub(super) list: Vec<Difference>,
    /// Number of differences that are not listed.
    pub(super) omitted: usize,
    #[serde(skip)]
    listed: usize,
    #[serde(skip)]
    section: Option<Section>,
}

impl Differences {
    /// Creates the empty list for two descriptions with these names.
    pub(super) fn new(old: &str, new: &str) -> Self {
        Self { old: old.to_owned(), new: new.to_owned(), ..Self::default() }
    }

    /// Adds a difference. The list holds a limited number of differences per section.
    pub(super) fn add(&mut self, difference: Difference) {
        if self.section != Some(difference.section) {
            (self.section, self.listed) = (Some(difference.section), 0);
        }
        self.listed += 1;
        if self.listed <= LISTED {
            self.list.push(difference);
        } else {
            self.omitted += 1;
        }
    }

    /// Returns the number of differences, including those that are not listed.
    pub(super) const fn count(&self) -> usize {
        self.list.len() + self.omitted
    }
}
