//! A devicetree that can be changed. New properties and nodes precede the others of their node, as
//! libfdt inserts them.

use crate::devicetree::DtbError;
use crate::devicetree::blob::{
    BEGIN_NODE, BlobNode, END, END_NODE, MAGIC, MAX_DEPTH, MAX_PATH, PROP, VERSION,
};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;

/// Maximum length of a tree in bytes.
const MAX_BYTES: usize = 64 << 20;
/// Bytes of a node or property in a blob, besides its name and value.
const OVERHEAD: usize = 16;
const HEADER_BYTES: usize = 40;

/// Number of nodes and properties that an overlay's names may be compared with, and of bytes of the
/// paths and labels. Without this limit, an overlay could make a node with many children, and
/// search them for each.
const STEPS: u64 = 1 << 26;

/// The overlay that set a property or added a node, and the index of the node in the overlay.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetBy {
    pub(super) overlay: usize,
    pub(super) node: usize,
}

#[derive(Clone, Debug)]
pub(super) struct EditTree {
    nodes: Vec<Node>,
    /// Approximate length of the blob.
    size: usize,
    /// Number of steps that searches may still take.
    steps: Cell<u64>,
}

#[derive(Clone, Debug)]
struct Node {
    name: String,
    parent: Option<usize>,
    depth: usize,
    /// Length of the path.
    path: usize,
    children: VecDeque<usize>,
    properties: VecDeque<Property>,
    added_by: Option<SetBy>,
}

#[derive(Clone, Debug)]
struct Property {
    name: String,
    value: Vec<u8>,
    set_by: Option<SetBy>,
}

impl EditTree {
    pub(super) const ROOT: usize = 0;

    pub(super) fn new(nodes: Vec<BlobNode<'_>>) -> Self {
        let mut tree = Self { nodes: Vec::new(), size: HEADER_BYTES, steps: Cell::new(STEPS) };
        for node in nodes {
            let properties = node.properties.iter().map(|property| Property {
                name: property.name.into(),
                value: property.value.to_vec(),
                set_by: None,
            });
            let properties: VecDeque<_> = properties.collect();
            let bytes = |one: &Property| OVERHEAD + one.name.len() + one.value.len();
            tree.size += properties.iter().map(bytes).sum::<usize>();
            let index = tree.push(node.parent, node.name, properties, None);
            if let Some(parent) = node.parent.and_then(|parent| tree.nodes.get_mut(parent)) {
                parent.children.push_back(index);
            }
        }
        tree
    }

    fn push(
        &mut self,
        parent: Option<usize>,
        name: &str,
        properties: VecDeque<Property>,
        added_by: Option<SetBy>,
    ) -> usize {
        let above = parent.and_then(|parent| self.nodes.get(parent));
        let (depth, path) =
            above.map_or((1, 1), |above| (above.depth + 1, above.path + 1 + name.len()));
        let children = VecDeque::new();
        let name = String::from(name);
        self.size += OVERHEAD + name.len();
        self.nodes.push(Node { name, parent, depth, path, children, properties, added_by });
        self.nodes.len() - 1
    }

    /// Adds a node, and returns its index.
    pub(super) fn add(
        &mut self,
        parent: usize,
        name: &str,
        added_by: Option<SetBy>,
    ) -> Result<usize, OverlayErrorKind> {
        let index = self.push(Some(parent), name, VecDeque::new(), added_by);
        let fits = |node: &Node| node.depth <= MAX_DEPTH && node.path <= MAX_PATH;
        if self.size > MAX_BYTES || !self.nodes.get(index).is_some_and(fits) {
            return Err(OverlayErrorKind::TooLarge);
        }
        if let Some(parent) = self.nodes.get_mut(parent) {
            parent.children.push_front(index);
        }
        Ok(index)
    }

    /// Sets a property to a value.
    pub(super) fn set(
        &mut self,
        node: usize,
        name: &str,
        value: Vec<u8>,
        set_by: Option<SetBy>,
    ) -> Result<(), OverlayErrorKind> {
        self.size += value.len();
        self.spend(self.properties(node).count());
        if !self.has_steps() {
            return Err(OverlayErrorKind::TooLarge);
        }
        if let Some(node) = self.nodes.get_mut(node) {
            let mut properties = node.properties.iter_mut();
            if let Some(property) = properties.find(|property| property.name == name) {
                self.size -= property.value.len();
                (property.value, property.set_by) = (value, set_by);
            } else {
                self.size += OVERHEAD + name.len();
                let name = String::from(name);
                node.properties.push_front(Property { name, value, set_by });
            }
        }
        if self.size > MAX_BYTES { Err(OverlayErrorKind::TooLarge) } else { Ok(()) }
    }

    /// Allows as many steps as an overlay may take.
    pub(super) fn renew_steps(&self) {
        self.steps.set(STEPS);
    }

    /// Returns `false` after a search was given up, so that its result is not valid.
    pub(super) fn has_steps(&self) -> bool {
        self.steps.get() > 0
    }

    fn spend(&self, steps: usize) {
        self.steps.set(self.steps.get().saturating_sub(steps as u64));
    }

    pub(super) fn nodes(&self) -> core::ops::Range<usize> {
        0..self.nodes.len()
    }

    pub(super) fn children(&self, node: usize) -> impl Iterator<Item = usize> {
        self.nodes.get(node).into_iter().flat_map(|node| node.children.iter().copied())
    }

    pub(super) fn properties(&self, node: usize) -> impl Iterator<Item = (&str, &[u8])> {
        let properties = self.nodes.get(node).into_iter().flat_map(|node| &node.properties);
        properties.map(|property| (property.name.as_str(), property.value.as_slice()))
    }

    pub(super) fn property(&self, node: usize, name: &str) -> Option<&[u8]> {
        let properties = self.properties(node).take_while(|_| self.has_steps());
        let mut properties = properties.inspect(|_| self.spend(1));
        properties.find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub(super) fn property_mut(&mut self, node: usize, name: &str) -> Option<&mut [u8]> {
        self.spend(self.properties(node).count());
        if !self.has_steps() {
            return None;
        }
        let mut properties = self.nodes.get_mut(node)?.properties.iter_mut();
        Some(properties.find(|property| property.name == name)?.value.as_mut_slice())
    }

    /// Returns a property that is a single string.
    pub(super) fn text(&self, node: usize, name: &str) -> Option<&str> {
        let value = self.property(node, name)?;
        self.spend(value.len());
        let bytes = value.split(|&byte| byte == 0).next()?;
        core::str::from_utf8(bytes).ok().filter(|_| self.has_steps())
    }

    /// Returns the overlay that set a property, or that added its node if there is no such
    /// property.
    pub(super) fn set_by(&self, node: usize, property: &str) -> Option<SetBy> {
        let node = self.nodes.get(node)?;
        let stated = node.properties.iter().find(|one| one.name == property);
        stated.map_or(node.added_by, |one| one.set_by)
    }

    pub(super) fn name(&self, node: usize) -> &str {
        self.nodes.get(node).map_or("", |node| node.name.as_str())
    }

    /// Returns the first child of this name. A name without a unit address matches any address.
    pub(super) fn child(&self, node: usize, name: &str) -> Option<usize> {
        let is_it = |&child: &usize| {
            self.spend(1);
            let rest = self.name(child).strip_prefix(name);
            rest.is_some_and(|rest| {
                rest.is_empty() || (rest.starts_with('@') && !name.contains('@'))
            })
        };
        self.children(node).take_while(|_| self.has_steps()).find(is_it)
    }

    /// Returns the node at a path, which may start with an alias.
    pub(super) fn find(&self, path: &str) -> Option<usize> {
        if path.is_empty() {
            return None;
        }
        let (alias, rest) = path.split_once('/').unwrap_or((path, ""));
        let start = if alias.is_empty() {
            Self::ROOT
        } else {
            let aliases = self.child(Self::ROOT, "aliases")?;
            self.walk(Self::ROOT, self.text(aliases, alias)?.strip_prefix('/')?)?
        };
        self.walk(start, rest)
    }

    fn walk(&self, from: usize, path: &str) -> Option<usize> {
        self.spend(path.len());
        if !self.has_steps() {
            return None;
        }
        let mut names = path.split('/').filter(|name| !name.is_empty());
        names.try_fold(from, |node, name| self.child(node, name))
    }

    pub(super) fn path(&self, node: usize) -> String {
        let above = |&node: &usize| self.nodes.get(node).and_then(|node| node.parent);
        let nodes = core::iter::successors(Some(node), above);
        let mut names: Vec<&str> = nodes.map(|node| self.name(node)).collect();
        names.reverse();
        if names.len() == 1 { String::from("/") } else { names.join("/") }
    }

    pub(super) fn phandle(&self, node: usize) -> Option<u32> {
        ["phandle", "linux,phandle"]
            .iter()
            .find_map(|name| Some(u32::from_be_bytes(self.property(node, name)?.try_into().ok()?)))
    }

    pub(super) fn by_phandle(&self, phandle: u32) -> Option<usize> {
        if !self.has_steps() {
            return None;
        }
        self.spend(self.nodes.len());
        let mut nodes = self.preorder().into_iter();
        nodes.find(|&node| self.phandle(node) == Some(phandle))
    }

    /// Returns all nodes in the order of a blob.
    fn preorder(&self) -> Vec<usize> {
        let (mut order, mut open) = (Vec::new(), alloc::vec![Self::ROOT]);
        while let Some(node) = open.pop() {
            order.push(node);
            open.extend(
                self.nodes.get(node).into_iter().flat_map(|node| node.children.iter().rev()),
            );
        }
        order
    }

    /// Writes a blob without memory reservations.
    pub(super) fn to_blob(&self) -> Vec<u8> {
        let mut writer = BlobWriter::default();
        let mut depth = 0;
        for index in self.preorder() {
            let Some(node) = self.nodes.get(index) else { continue };
            (node.depth..=depth).for_each(|_| writer.word(END_NODE));
            depth = node.depth;
            writer.word(BEGIN_NODE);
            writer.bytes(&[node.name.as_bytes(), &[0]].concat());
            for property in &node.properties {
                writer.property(&property.name, &property.value);
            }
        }
        (0..depth).for_each(|_| writer.word(END_NODE));
        writer.word(END);
        writer.finish()
    }
}

/// Writes the structure block and the strings block of a blob.
#[derive(Default)]
struct BlobWriter<'t> {
    structure: Vec<u8>,
    strings: Vec<u8>,
    offsets: BTreeMap<&'t str, u32>,
}

impl<'t> BlobWriter<'t> {
    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.structure.extend(bytes);
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
    }

    fn property(&mut self, name: &'t str, value: &[u8]) {
        let end = length(&self.strings);
        let offset = *self.offsets.entry(name).or_insert(end);
        if offset == end {
            self.strings.extend([name.as_bytes(), &[0]].concat());
        }
        for word in [PROP, length(value), offset] {
            self.word(word);
        }
        self.bytes(value);
    }

    fn finish(self) -> Vec<u8> {
        let reservations = [0; 16];
        let structure = length(&[0; HEADER_BYTES]) + length(&reservations);
        let strings = structure + length(&self.structure);
        let total = strings + length(&self.strings);
        let header = [
            MAGIC,
            total,
            structure,
            strings,
            length(&[0; HEADER_BYTES]),
            VERSION,
            VERSION - 1,
            0,
            length(&self.strings),
            length(&self.structure),
        ];
        let header: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        [&header[..], &reservations, &self.structure, &self.strings].concat()
    }
}

/// Returns a length as a word. Trees are limited to [`MAX_BYTES`].
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// An overlay that cannot be applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {kind}")]
pub struct OverlayError {
    /// Node of the overlay.
    pub place: String,
    /// Defect of the node.
    pub kind: OverlayErrorKind,
}

/// Defects that keep an overlay from being applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OverlayErrorKind {
    /// The overlay is not a devicetree.
    #[error("{0}")]
    Blob(DtbError),
    /// The base has no node with this label. Bases that are compiled without `dtc -@` have no
    /// labels.
    #[error("the base has no node with the label {0:?}, or was compiled without labels (`dtc -@`)")]
    NoLabel(String),
    /// The target of a fragment does not exist in the base.
    #[error("its target does not exist in the base")]
    NoTarget,
    /// A property, or a node that it refers to, is malformed or missing.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Phandles are exhausted.
    #[error("no phandles are left")]
    NoPhandles,
    /// The result is deeper or larger than a devicetree may be.
    #[error("the tree becomes too deep or too large")]
    TooLarge,
}

impl OverlayErrorKind {
    pub(super) fn at(self, place: &str) -> OverlayError {
        OverlayError { place: String::from(place), kind: self }
    }
}

impl OverlayError {
    pub(super) fn blob(error: DtbError) -> Self {
        OverlayErrorKind::Blob(error).at("/")
    }
}
