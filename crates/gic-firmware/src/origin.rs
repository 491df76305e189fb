//! Origins of facts.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;

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
