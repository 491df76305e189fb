//! Unfolds the tree into an arena, which adds the parents, phandles and paths that a flat blob
//! lacks. Decodes cells and `reg`, and translates bus addresses to CPU addresses (Devicetree
//! Specification §2.3).

use super::blob::{self, BlobNode, DtbError, Property};
use crate::finding::{Fact, FindingList, NodeId, Origin, Region, Rule, Status};
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::format;
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

/// Names of the regions in `reg`.
pub(super) const REGION_NAMES: &str = "reg-names";
/// Property of a bus that translates the CPUs' accesses to its devices.
pub(super) const RANGES: &str = "ranges";
/// Property of a bus that translates its devices' accesses to memory.
pub(super) const DMA_RANGES: &str = "dma-ranges";
/// Maximum number of cells in an address or a size: 64 bits plus a prefix of up to two cells (PCI
/// has one).
const MAX_CELLS: u32 = 4;
const CELL_BYTES: usize = 4;

/// Returns the cells of a property as numbers; `None` if its length is not a multiple of four.
pub(super) fn cells(value: &[u8]) -> Option<Vec<u32>> {
    let (cells, rest) = value.as_chunks::<CELL_BYTES>();
    rest.is_empty().then(|| cells.iter().map(|cell| u32::from_be_bytes(*cell)).collect())
}

/// Formats a number of cells, e.g. as `2 cells`.
pub(super) fn cells_in_words(count: usize) -> String {
    if count == 1 { String::from("1 cell") } else { format!("{count} cells") }
}

/// Number of cells in an address and in a size on a bus.
#[derive(Clone, Copy)]
struct Shape {
    address: usize,
    size: usize,
}

impl Shape {
    /// Returns the numbers of cells that the children of `bus` use.
    fn of(bus: NodeRef<'_, '_>) -> Result<Self, String> {
        let check = |property, stated| match stated {
            0..=MAX_CELLS => Ok(stated as usize),
            _ => Err(format!("{property} is {stated}")),
        };
        let cells = bus.child_cells();
        Ok(Self {
            address: check("#address-cells", cells.address)?,
            size: check("#size-cells", cells.size)?,
        })
    }
}

/// Splits a property into entries. Each entry consists of fields with these numbers of cells.
fn entries<const N: usize>(
    value: &[u8],
    fields: [usize; N],
) -> Option<impl Iterator<Item = [u128; N]> + use<'_, N>> {
    let entry_bytes = fields.iter().sum::<usize>() * CELL_BYTES;
    if entry_bytes == 0 || !value.len().is_multiple_of(entry_bytes) {
        return None;
    }
    Some(value.chunks_exact(entry_bytes).map(move |entry| {
        let mut rest = entry;
        fields.map(|cells| {
            let (field, after) = rest.split_at_checked(cells * CELL_BYTES).unwrap_or((rest, &[]));
            rest = after;
            field.iter().fold(0, |number, &byte| (number << 8) | u128::from(byte))
        })
    }))
}

/// Returns the `reg` entries of `node` as (address, size) on its bus. The list is empty if the node
/// has no `reg`. The error is a message for the user.
pub(super) fn bus_regions(node: NodeRef<'_, '_>) -> Result<Vec<(u128, u128)>, String> {
    let Some(value) = node.property("reg") else { return Ok(Vec::new()) };
    let shape = Shape::of(node.parent().unwrap_or(node))?;
    match entries(value, [shape.address, shape.size]) {
        Some(entries) => Ok(entries.map(|[address, size]| (address, size)).collect()),
        None => Err(format!(
            "{} bytes are not a whole number of ({},{})-cell entries",
            value.len(),
            shape.address,
            shape.size
        )),
    }
}

/// Translates an address on the bus of `node` to a CPU address. The error is a message for the
/// user.
pub(super) fn to_cpu(node: NodeRef<'_, '_>, address: u128) -> Result<u64, String> {
    translate(node, address, RANGES)
}

/// Translates an address on the bus of `node`, which `node` itself accesses, by the `dma-ranges` of
/// the buses above. A bus without the property does not translate (as in Linux's
/// `of_translate_dma_address`).
pub(super) fn to_memory(node: NodeRef<'_, '_>, address: u128) -> Result<u64, String> {
    translate(node, address, DMA_RANGES)
}

fn translate(node: NodeRef<'_, '_>, address: u128, property: &str) -> Result<u64, String> {
    let mut address = address;
    for bus in node.upwards().skip(1) {
        // Addresses of the root's children are CPU addresses.
        let Some(above) = bus.parent() else { break };
        let Some(ranges) = bus.property(property) else {
            if property == DMA_RANGES {
                continue;
            }
            return Err(format!("{} has no `{property}` for address {address:#x}", bus.path()));
        };
        if ranges.is_empty() {
            continue;
        }
        let (child, parent) = (Shape::of(bus)?, Shape::of(above)?);
        let entries = entries(ranges, [child.address, parent.address, child.size])
            .ok_or_else(|| format!("`{property}` of {} is malformed", bus.path()))?;
        address = search(bus, entries, address, property)?;
    }
    u64::try_from(address).map_err(|_| format!("address {address:#x} has more than 64 bits"))
}

/// Returns the entries of `ranges` or `dma-ranges` of `bus` as (bus address, parent address, size).
/// Bus addresses must have `cells` cells. `None` if the property is absent or malformed.
pub(super) fn range_entries<'a>(
    bus: NodeRef<'_, 'a>,
    property: &str,
    cells: usize,
) -> Option<impl Iterator<Item = [u128; 3]> + use<'a>> {
    let ranges = bus.property(property)?;
    let (child, parent) = (Shape::of(bus).ok()?, Shape::of(bus.parent()?).ok()?);
    let fields = [child.address, parent.address, child.size];
    if child.address == cells { entries(ranges, fields) } else { None }
}

/// Translates `address` by a property of `bus`; the first entry that contains it is used.
pub(super) fn search(
    bus: NodeRef<'_, '_>,
    entries: impl Iterator<Item = [u128; 3]>,
    address: u128,
    property: &str,
) -> Result<u128, String> {
    for [from, to, size] in entries {
        bus.spend()
            .ok_or_else(|| String::from("the tree has too many regions and ranges to translate"))?;
        let offset = address.checked_sub(from).filter(|&offset| offset < size);
        if let Some(above) = offset.and_then(|offset| to.checked_add(offset)) {
            return Ok(above);
        }
    }
    Err(format!("`{property}` of {} does not contain address {address:#x}", bus.path()))
}

/// Returns one `reg` entry as a CPU physical region. The error is a message for the user.
fn region(node: NodeRef<'_, '_>, (address, size): (u128, u128)) -> Result<Region, String> {
    let base = to_cpu(node, address)?;
    u64::try_from(size)
        .ok()
        .and_then(|size| Region::new(base, size))
        .ok_or_else(|| format!("{size:#x} bytes at {base:#x} reach past the address space"))
}

/// Returns the `reg` entries of `node` as CPU physical regions. An entry that cannot be translated
/// is reported, and is `None` in the result.
pub(super) fn regions(
    node: NodeRef<'_, '_>,
    findings: &mut FindingList,
) -> Vec<Option<Fact<Region>>> {
    let entries = match bus_regions(node) {
        Ok(entries) => entries,
        Err(message) => {
            findings.add(Rule::MalformedProperty, node.origin("reg"), message);
            return Vec::new();
        }
    };
    entries
        .into_iter()
        .map(|entry| match region(node, entry) {
            Ok(region) => Some(Fact::new(region, node.origin("reg"))),
            Err(message) => {
                findings.add(Rule::UntranslatableAddress, node.origin("reg"), message);
                None
            }
        })
        .collect()
}

/// Like [`regions`], for a node that must state regions. Otherwise, reports `missing`.
pub(super) fn required_regions(
    node: NodeRef<'_, '_>,
    missing: &'static str,
    findings: &mut FindingList,
) -> Vec<Option<Fact<Region>>> {
    if node.property("reg").is_none_or(<[u8]>::is_empty) {
        findings.add(Rule::MissingProperty, node.origin("reg"), missing);
    }
    regions(node, findings)
}

/// Returns the CPU physical regions of `node` without reporting anything; entries that cannot be
/// translated are omitted.
pub(super) fn regions_if_any(node: NodeRef<'_, '_>) -> Vec<Fact<Region>> {
    let entries = bus_regions(node).unwrap_or_default();
    entries
        .into_iter()
        .filter_map(|entry| region(node, entry).ok())
        .map(|region| Fact::new(region, node.origin("reg")))
        .collect()
}

/// Returns the CPU address in a property that contains one address on the bus of `node`
/// (`mbi-alias`). The error is a message for the user.
pub(super) fn bus_address(node: NodeRef<'_, '_>, value: &[u8]) -> Result<u64, String> {
    let shape = Shape::of(node.parent().unwrap_or(node))?;
    let mut addresses = entries(value, [shape.address]).ok_or_else(|| {
        format!("{} bytes are not an address of {} cells", value.len(), shape.address)
    })?;
    let [address] = addresses.next().ok_or_else(|| String::from("the address is missing"))?;
    to_cpu(node, address)
}
