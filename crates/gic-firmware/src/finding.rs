//! Facts with their origins, and findings: defects of the input that don't prevent reading it. They
//! are collected up to a limit, so that hostile input can't exhaust memory.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

pub use crate::rule::{Rule, Severity};

pub use msi_types::Region;

/// Maximum number of distinct findings. After this many, the list ends with one more finding, which
/// states that the list is incomplete.
const MAX_FINDINGS: usize = 256;

/// A defect in firmware's description of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Rule that firmware breaks.
    pub rule: Rule,
    /// Location in the input.
    pub origin: Origin,
    /// Details, for a human reader.
    pub message: String,
}

impl Finding {
    /// Returns the severity of the finding's rule.
    pub const fn severity(&self) -> Severity {
        self.rule.severity()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] {}: {}", self.severity(), self.rule, self.origin, self.message)
    }
}

/// The findings of a reader or check, without duplicates.
#[derive(Default)]
pub(crate) struct FindingList {
    list: Vec<Finding>,
}

impl FindingList {
    /// Creates a list that starts with the findings in `list`.
    pub(crate) fn new(list: Vec<Finding>) -> Self {
        Self { list }
    }

    pub(crate) fn add(&mut self, rule: Rule, origin: Origin, message: impl Into<String>) {
        if self.list.len() < MAX_FINDINGS {
            let finding = Finding { rule, origin, message: message.into() };
            if !self.list.contains(&finding) {
                self.list.push(finding);
            }
        } else if self.list.len() == MAX_FINDINGS {
            let message = String::from("only the findings before this one are listed");
            self.list.push(Finding { rule: Rule::TooManyFindings, origin, message });
        }
    }

    /// Returns `true` if the list has a finding of this rule.
    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.list.iter().any(|finding| finding.rule == rule)
    }

    pub(crate) fn into_list(self) -> Vec<Finding> {
        self.list
    }
}

/// The place in firmware's tables or devicetree where a fact was read.
///
/// For a devicetree: a node's full path and a property. For ACPI: the position of a structure in
/// its table (e.g. `MADT+0x2c`) and a field. Cloning is cheap, because all facts of a node share
/// its path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    place: Option<Arc<str>>,
    item: &'static str,
}

impl Origin {
    /// Creates the origin for `item` (a property) of `place` (a node's full path).
    pub fn new(place: Arc<str>, item: &'static str) -> Self {
        Self { place: Some(place), item }
    }

    /// Creates the origin of a fact that a program states rather than firmware.
    pub const fn program() -> Self {
        Self { place: None, item: "" }
    }

    /// Returns the node's full path; `None` if a program states the fact.
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// Returns the property whose value (or absence) establishes the fact. Returns an empty string
    /// if the whole node does.
    pub const fn item(&self) -> &'static str {
        self.item
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            None => f.write_str("(stated by the program)"),
            Some(place) if self.item.is_empty() => f.write_str(place),
            Some(place) => write!(f, "{place}: {}", self.item),
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

/// A value and the place where it was read.
///
/// Two facts are equal if their values are equal, regardless of their origins. Thus, a description
/// from a devicetree can be compared with one from ACPI tables, or with the description that is
/// read back after writing it.
#[derive(Clone, Debug)]
pub struct Fact<T> {
    /// Stated value.
    pub value: T,
    /// Place in the input.
    pub origin: Origin,
}

impl<T> Fact<T> {
    /// Creates a fact with `value`, read at `origin`.
    pub const fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }

    /// Creates a fact that a program states.
    pub const fn stated(value: T) -> Self {
        Self { value, origin: Origin::program() }
    }
}

impl<T> Deref for Fact<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Fact<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Fact<T> {}

impl<T> From<T> for Fact<T> {
    fn from(value: T) -> Self {
        Self::stated(value)
    }
}

/// Name of a node or table entry; in a devicetree the full path, such as
/// `/intc@8000000/its@8080000`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Creates the name of the node at this path.
    pub fn new(path: &str) -> Self {
        Self(path.to_owned().into())
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the origin for `item` of this node.
    pub fn origin(&self, item: &'static str) -> Origin {
        Origin::new(self.0.clone(), item)
    }
}

impl From<Arc<str>> for NodeId {
    fn from(path: Arc<str>) -> Self {
        Self(path)
    }
}

impl From<&str> for NodeId {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

impl From<String> for NodeId {
    fn from(path: String) -> Self {
        Self(path.into())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A set of regions, searched by address. If regions overlap, a lookup only considers the region
/// with the highest base.
pub(crate) struct RegionSet(Vec<Region>);

impl RegionSet {
    pub(crate) fn new(regions: impl Iterator<Item = Region>) -> Self {
        let mut sorted: Vec<Region> = regions.collect();
        sorted.sort();
        Self(sorted)
    }

    pub(crate) fn contains(&self, address: u64) -> bool {
        self.around(address).is_some()
    }

    /// Returns the region that contains `address`.
    pub(crate) fn around(&self, address: u64) -> Option<Region> {
        let after = self.0.partition_point(|region| region.base() <= address);
        let holder = after.checked_sub(1).and_then(|place| self.0.get(place));
        holder.copied().filter(|region| region.contains(address))
    }
}

/// Permission for an operating system to use a node. A disabled ancestor also disables the node;
/// the ancestor is then the origin of the node's status.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// Usable.
    Enabled,
    /// The node exists, but operating systems must not use it.
    Disabled,
}

impl Status {
    /// Returns `true` if an operating system may use the node.
    pub const fn is_enabled(self) -> bool {
        matches!(self, Self::Enabled)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        })
    }
}
