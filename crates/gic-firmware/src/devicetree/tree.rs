//! Unfolds the tree into an arena, which adds the parents, phandles and paths that a flat blob
//! lacks.

use super::blob::{self, BlobNode, DtbError, Property};
use crate::finding::{Fact, NodeId, Origin, Status};
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, OnceCell};

/// All nodes, each after its parent and after the earlier children of its parent.
pub(super) struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    phandles: BTreeMap<u32, usize>,
    /// Nodes with the same phandle as an earlier node.
    repeated_phandles: Vec<usize>,
    /// Number of `ranges` entries that may still be read during address translation.
    budget: Cell<u32>,
}

/// Initial value of the budget, which bounds the number of regions times the number of `ranges`
/// entries. Real trees need a few thousand steps.
const RANGE_STEPS: u32 = 1 << 22;

struct Node<'a> {
    parent: Option<usize>,
    name: &'a str,
    /// Properties sorted by name. If several properties have the same name, only the first one is
    /// used.
    properties: Vec<Property<'a>>,
    /// Number of cells in the addresses and sizes of the node's children, inherited from the parent
    /// if the node does not set it.
    child_cells: ChildCells,
    /// Topmost disabled node on the path from the root to this node.
    disabled_by: Option<usize>,
    path: OnceCell<Arc<str>>,
}

/// Values of `#address-cells` and `#size-cells`, without validation.
#[derive(Clone, Copy)]
pub(super) struct ChildCells {
    pub(super) address: u32,
    pub(super) size: u32,
}

impl<'a> Tree<'a> {
    /// Reads the tree of a blob.
    pub(super) fn read(input: &'a [u8]) -> Result<Self, DtbError> {
        let mut tree = Self {
            nodes: Vec::new(),
            phandles: BTreeMap::new(),
            repeated_phandles: Vec::new(),
            budget: Cell::new(RANGE_STEPS),
        };
        blob::nodes(input)?.into_iter().for_each(|node| tree.add(node));
        Ok(tree)
    }

    fn add(&mut self, node: BlobNode<'a>) {
        let BlobNode { parent, name, mut properties } = node;
        let index = self.nodes.len();
        properties.sort_by_key(|property| property.name);
        let above = parent.and_then(|parent| self.nodes.get(parent));
        // As in Linux, use the nearest ancestor's number, or else one cell. (The specification
        // forbids inheritance and defaults to two address cells, but no real tree relies on these
        // rules.)
        let inherited = above.map_or(ChildCells { address: 1, size: 1 }, |above| above.child_cells);
        let disabled_above = above.and_then(|above| above.disabled_by);
        self.nodes.push(Node {
            parent,
            name,
            properties,
            child_cells: inherited,
            disabled_by: disabled_above,
            path: OnceCell::new(),
        });
        let node = NodeRef { tree: self, index };
        let child_cells = ChildCells {
            address: node.number("#address-cells").unwrap_or(inherited.address),
            size: node.number("#size-cells").unwrap_or(inherited.size),
        };
        let disables = node.has("status") && !matches!(node.text("status"), Some("okay" | "ok"));
        let phandle = node.number("phandle").or_else(|| node.number("linux,phandle"));
        if let Some(node) = self.nodes.last_mut() {
            node.child_cells = child_cells;
            node.disabled_by = disabled_above.or(disables.then_some(index));
        }
        if let Some(phandle) = phandle {
            match self.phandles.entry(phandle) {
                Entry::Vacant(first) => {
                    first.insert(index);
                }
                Entry::Occupied(_) => self.repeated_phandles.push(index),
            }
        }
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeRef<'_, 'a>> {
        (0..self.nodes.len()).map(|index| NodeRef { tree: self, index })
    }

    pub(super) fn by_phandle(&self, phandle: u32) -> Option<NodeRef<'_, 'a>> {
        self.phandles.get(&phandle).map(|&index| NodeRef { tree: self, index })
    }

    pub(super) fn repeated_phandles(&self) -> impl Iterator<Item = NodeRef<'_, 'a>> {
        self.repeated_phandles.iter().map(|&index| NodeRef { tree: self, index })
    }
}

/// A node of a tree.
#[derive(Clone, Copy)]
pub(super) struct NodeRef<'t, 'a> {
    tree: &'t Tree<'a>,
    index: usize,
}

impl<'t, 'a> NodeRef<'t, 'a> {
    /// Returns the node's index in input order. The index identifies the node.
    pub(super) fn index(self) -> usize {
        self.index
    }

    pub(super) fn name(self) -> &'a str {
        self.node().name
    }

    pub(super) fn parent(self) -> Option<Self> {
        self.node().parent.map(|index| Self { tree: self.tree, index })
    }

    pub(super) fn is_child_of_root(self) -> bool {
        self.parent().is_some_and(|parent| parent.parent().is_none())
    }

    /// Returns the node itself, its parent, and so on up to the root.
    pub(super) fn upwards(self) -> impl Iterator<Item = Self> {
        core::iter::successors(Some(self), |node| node.parent())
    }

    pub(super) fn property(self, name: &str) -> Option<&'a [u8]> {
        let properties = &self.node().properties;
        let place = properties.partition_point(|property| property.name < name);
        Some(properties.get(place).filter(|property| property.name == name)?.value)
    }

    /// Returns all properties, sorted by name.
    pub(super) fn properties(self) -> &'t [Property<'a>] {
        &self.node().properties
    }

    pub(super) fn has(self, name: &str) -> bool {
        self.property(name).is_some()
    }

    /// Returns the value of a property that has exactly one cell.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        self.property(name)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// Returns the first string of a property.
    pub(super) fn text(self, name: &str) -> Option<&'a str> {
        self.strings(name).next()
    }

    /// Returns the strings of a property. The list is empty if the property is absent.
    pub(super) fn strings(self, name: &str) -> impl Iterator<Item = &'a str> {
        strings(self.property(name).unwrap_or_default())
    }

    pub(super) fn compatible(self) -> Vec<String> {
        self.strings("compatible").map(String::from).collect()
    }

    pub(super) fn is_compatible(self, with: &[&str]) -> bool {
        let names = self.property("compatible").unwrap_or_default();
        terminated(names).any(|name| with.iter().any(|one| one.as_bytes() == name))
    }

    /// Returns the status, disabled if the node or an ancestor is. If the node is disabled, the
    /// origin is the topmost disabled node on its path.
    pub(super) fn status(self) -> Fact<Status> {
        match self.node().disabled_by {
            Some(index) => {
                Fact::new(Status::Disabled, Self { tree: self.tree, index }.origin("status"))
            }
            None => Fact::new(Status::Enabled, self.origin("status")),
        }
    }

    pub(super) fn child_cells(self) -> ChildCells {
        self.node().child_cells
    }

    /// Spends one step of the tree's budget for reading `ranges`. Returns `None` if the budget is
    /// exhausted.
    pub(super) fn spend(self) -> Option<()> {
        self.tree.budget.set(self.tree.budget.get().checked_sub(1)?);
        Some(())
    }

    pub(super) fn id(self) -> NodeId {
        NodeId::from(self.path())
    }

    pub(super) fn origin(self, property: &'static str) -> Origin {
        Origin::new(self.path(), property)
    }

    pub(super) fn path(self) -> Arc<str> {
        self.node().path.get_or_init(|| self.spell_path()).clone()
    }

    fn spell_path(self) -> Arc<str> {
        let mut names: Vec<&str> = self.upwards().map(Self::name).collect();
        names.reverse();
        match names.as_slice() {
            [_root] => Arc::from("/"),
            names => Arc::from(names.join("/")),
        }
    }

    fn node(self) -> &'t Node<'a> {
        // Every reference was created from an index into this arena, which never shrinks.
        &self.tree.nodes[self.index]
    }
}

/// Returns the strings of a string list, up to the first that is not terminated or not UTF-8.
fn strings(value: &[u8]) -> impl Iterator<Item = &str> {
    terminated(value).map_while(|bytes| core::str::from_utf8(bytes).ok())
}

/// Returns the strings of a string list that end with a zero, without it.
fn terminated(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = value.split_inclusive(|&byte| byte == 0);
    all.filter_map(|string| string.strip_suffix(&[0]))
}
