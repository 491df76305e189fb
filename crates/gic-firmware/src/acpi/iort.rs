//! The IORT maps requester IDs through IOMMUs to an ITS (Arm DEN 0049, revisions A to E.g).

use super::fields::{
    Field, INDEX_VALID, Layout, SMMU_V3_GSIVS, iort_header, its_group, iwb, named_component,
    node_head, node_start, pmcg, redistributor_group, rmr, root_complex, smmu_v2, smmu_v3,
};
use super::table::{Fields, Signature, Table, TableError, TableErrorKind, origin};
use crate::finding::Origin;

/// Length in bytes of the header common to all nodes.
pub(super) const NODE_BYTES: usize = 16;
/// Length of an ID mapping in bytes.
pub(super) const MAPPING_BYTES: usize = 20;
/// Length of the ID of an ITS in a group, in bytes.
const ID_BYTES: usize = 4;
/// Flag of an ID mapping whose input ID is ignored.
pub(super) const SINGLE_MAPPING: u32 = 1;

/// Revision and magic number in this project's draft node for direct LPIs
/// (`docs/specs/iort-redistributor-group.md`).
pub(super) const DRAFT_REVISION: u8 = 0;
pub(super) const DRAFT_MARK: [u8; 16] =
    *b"\x54\x8a\x1d\x6f\x0e\x3c\x7e\x4b\x9d\x2a\x8f\x41\xc6\xb0\xe7\xd3";

/// An IO Remapping Table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Iort<'a>(Table<'a>);

impl<'a> Iort<'a> {
    /// Reads `table` as an IORT.
    ///
    /// # Errors
    ///
    /// Returns an error if `table` is not an IORT.
    pub fn new(table: Table<'a>) -> Result<Self, TableError> {
        table.expect(Signature::IORT).map(Self)
    }

    /// Returns the table with its header.
    pub const fn table(self) -> Table<'a> {
        self.0
    }

    /// Returns the number of nodes that the table states. [`nodes`](Self::nodes) never returns
    /// more.
    pub(super) fn stated_nodes(self) -> u32 {
        iort_header::NODES.read(self.0.fields()).unwrap_or_default()
    }

    /// Returns the nodes in order. If an error makes the offset of the next node unknown, the
    /// iterator ends after the error.
    pub(super) fn nodes(self) -> impl Iterator<Item = Result<IortNode<'a>, TableError>> {
        self.nodes_to_end().take(usize::try_from(self.stated_nodes()).unwrap_or(usize::MAX))
    }

    /// Returns the nodes in order, regardless of the number of nodes that the table states.
    pub(super) fn nodes_to_end(self) -> impl Iterator<Item = Result<IortNode<'a>, TableError>> {
        let mut next = Some(iort_header::FIRST_NODE.read(self.0.fields()).unwrap_or_default());
        core::iter::from_fn(move || {
            let offset: usize = next.take()?;
            let rest = Fields(self.0.bytes().get(offset..).unwrap_or_default());
            let length = node_start::LENGTH.read(rest).unwrap_or(rest.0.len());
            let bytes = rest.slice(0, length).filter(|bytes| bytes.len() >= NODE_BYTES);
            let Some(bytes) = bytes else {
                return Some(Err(self.0.error(offset, TableErrorKind::StructureLength(length))));
            };
            next = Some(offset.saturating_add(length));
            Some(IortNode::read(self.0, offset, Fields(bytes)))
        })
    }
}

/// A type of node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NodeKind {
    /// ITSes that serve the same requesters.
    ItsGroup,
    /// A device in the ACPI namespace.
    NamedComponent,
    /// A PCI root complex.
    RootComplex,
    /// An SMMUv1 or SMMUv2.
    SmmuV2,
    /// An SMMUv3.
    SmmuV3,
    /// A performance monitor counter group.
    Pmcg,
    /// Reserved memory ranges.
    Rmr,
    /// A GICv5 Interrupt Wire Bridge.
    Iwb,
    /// This project's **draft** node (with a magic number), which stands for the direct LPI
    /// doorbells of all redistributors.
    DraftRedistributorGroup,
    /// A node of an unknown type.
    Other(u8),
}

impl NodeKind {
    /// Returns the type of a node; `None` if the node ends before a field that its type always has
    /// in this revision, or if the path of a named component is not text.
    fn read(node: Fields<'_>, revision: u8) -> Option<Self> {
        let (kind, last) = match node.u8(0)? {
            its_group::KIND => (Self::ItsGroup, its_group::ITSES),
            named_component::KIND => (Self::NamedComponent, named_component::ADDRESS_BITS),
            root_complex::KIND if revision == 0 => (Self::RootComplex, root_complex::SEGMENT),
            root_complex::KIND => (Self::RootComplex, root_complex::ADDRESS_BITS),
            smmu_v2::KIND => (Self::SmmuV2, smmu_v2::MODEL),
            smmu_v3::KIND if revision == 0 => (Self::SmmuV3, smmu_v3::BASE),
            smmu_v3::KIND => (Self::SmmuV3, smmu_v3::OWN_MAPPING),
            pmcg::KIND => (Self::Pmcg, pmcg::OVERFLOW_GSIV),
            rmr::KIND => (Self::Rmr, node_head::FIRST_MAPPING),
            iwb::KIND => (Self::Iwb, node_head::FIRST_MAPPING),
            redistributor_group::KIND
                if revision == DRAFT_REVISION && node.array(NODE_BYTES) == Some(DRAFT_MARK) =>
            {
                node.slice(0, redistributor_group::LAYOUT.first.into())?;
                (Self::DraftRedistributorGroup, node_head::FIRST_MAPPING)
            }
            other => (Self::Other(other), node_head::FIRST_MAPPING),
        };
        last.read::<u64>(node)?;
        if kind == Self::NamedComponent {
            path(node)?;
        }
        Some(kind)
    }

    /// Returns `true` if ID mappings may refer to nodes of this type.
    pub(super) const fn takes_ids(self) -> bool {
        self.is_smmu() || matches!(self, Self::ItsGroup | Self::Iwb | Self::DraftRedistributorGroup)
    }

    /// Returns `true` if a counter group can count events of nodes of this type.
    pub(super) const fn has_events(self) -> bool {
        self.is_smmu() || matches!(self, Self::RootComplex | Self::NamedComponent)
    }

    /// Returns `true` for an SMMU of any version.
    pub(super) const fn is_smmu(self) -> bool {
        matches!(self, Self::SmmuV2 | Self::SmmuV3)
    }
}

/// Returns the path of a named component.
fn path(node: Fields<'_>) -> Option<&str> {
    let rest = node.0.get(usize::from(named_component::LAYOUT.first)..)?;
    let length = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
    core::str::from_utf8(rest.get(..length)?).ok()
}

/// A node of an IORT. Its fields are read in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct IortNode<'a> {
    /// Offset in bytes from the start of the table, by which other nodes refer to this node.
    pub(super) offset: usize,
    pub(super) kind: NodeKind,
    /// Revision of the node's layout.
    pub(super) revision: u8,
    /// The node up to its end, with its mappings.
    pub(super) fields: Fields<'a>,
    mappings: &'a [u8],
    /// Offset of the mappings from the start of the node.
    mappings_at: usize,
}

impl<'a> IortNode<'a> {
    fn read(table: Table<'a>, offset: usize, fields: Fields<'a>) -> Result<Self, TableError> {
        let revision = node_head::REVISION.read(fields).unwrap_or_default();
        let stated_kind = fields.u8(0).unwrap_or_default();
        let short = TableErrorKind::ShortStructure { kind: stated_kind, length: fields.0.len() };
        let kind = NodeKind::read(fields, revision).ok_or(table.error(offset, short))?;
        let array = |at: usize, count: u32, size| {
            elements(fields, at, count, size)
                .ok_or(table.error(offset, TableErrorKind::Array(count)))
        };
        if kind == NodeKind::ItsGroup {
            let stated = its_group::ITSES.read(fields).unwrap_or_default();
            array(its_group::LAYOUT.first.into(), stated, ID_BYTES)?;
        }
        let count = node_head::MAPPINGS.read(fields).unwrap_or_default();
        let mappings_at = node_head::FIRST_MAPPING.read(fields).unwrap_or_default();
        let mappings = array(mappings_at, count, MAPPING_BYTES)?;
        Ok(Self { offset, kind, revision, fields, mappings, mappings_at })
    }

    /// Returns the value of a field; zero if the node ends before it.
    pub(super) fn get<T: TryFrom<u64> + Default>(self, field: Field) -> T {
        field.read(self.fields).unwrap_or_default()
    }

    /// Returns the layout of the node's type, if the type is known.
    pub(super) fn layout(self) -> Option<Layout> {
        Layout::of(Signature::IORT, self.fields.u8(0)?)
    }

    /// Returns the ID mappings in order.
    pub(super) fn mappings(self) -> impl Iterator<Item = IdMapping> + use<'a> {
        let first = self.offset.saturating_add(self.mappings_at);
        self.mappings
            .chunks_exact(MAPPING_BYTES)
            .zip((first..).step_by(MAPPING_BYTES))
            .filter_map(|(bytes, offset)| IdMapping::read(offset, Fields(bytes)))
    }

    /// Returns the bytes of the node, or those before its first mapping, where its fields end.
    pub(super) fn before_mappings(self) -> Fields<'a> {
        let end =
            if self.mappings.is_empty() { None } else { self.fields.0.get(..self.mappings_at) };
        Fields(end.unwrap_or(self.fields.0))
    }

    /// Returns the origin of findings about an item of the node.
    pub(super) fn origin(self, item: &'static str) -> Origin {
        origin(Signature::IORT, self.offset, item)
    }

    /// Returns the IDs that the MADT assigns to the ITSes of a group. Operating systems use the
    /// first ITS.
    pub(super) fn its_ids(self) -> impl Iterator<Item = u32> + use<'a> {
        let count = self.get(its_group::ITSES);
        let ids = elements(self.fields, its_group::LAYOUT.first.into(), count, ID_BYTES);
        ids.unwrap_or_default().as_chunks().0.iter().map(|id| u32::from_le_bytes(*id))
    }

    /// Returns the full path of a named component's object, such as `\_SB.DMA0`.
    pub(super) fn path(self) -> &'a str {
        path(self.fields).unwrap_or_default()
    }

    /// Returns the number of address bits in the writes of a component, or of a root complex's
    /// functions; 0 if not stated (revision 0 of a root complex).
    pub(super) fn address_bits(self) -> u8 {
        match self.kind {
            NodeKind::NamedComponent => self.get(named_component::ADDRESS_BITS),
            NodeKind::RootComplex if self.revision > 0 => self.get(root_complex::ADDRESS_BITS),
            _ => 0,
        }
    }

    /// Returns the compatible string that devicetrees use for the model of an SMMUv2.
    pub(super) fn smmu_v2_compatible(self) -> &'static str {
        match self.get::<u32>(smmu_v2::MODEL) {
            0 => "arm,smmu-v1",
            2 => "arm,mmu-400",
            3 => "arm,mmu-500",
            4 => "arm,mmu-401",
            5 => "cavium,smmu-v2",
            _ => "arm,smmu-v2",
        }
    }

    /// Returns the index of the mapping for messages that the node itself sends, as opposed to
    /// messages that pass through it. Only an SMMUv3 or a PMCG has such a mapping.
    ///
    /// Revision 0 of an SMMUv3 has no index of this mapping. Up to revision 4, the index is valid
    /// unless all interrupts are wired; later revisions have a flag that states whether the index
    /// is valid.
    pub(super) fn own_mapping(self) -> Option<usize> {
        let is_valid = match (self.kind, self.revision) {
            (NodeKind::Pmcg, _) => return (self.get::<u32>(pmcg::OVERFLOW_GSIV) == 0).then_some(0),
            (NodeKind::SmmuV3, 1..=4) => {
                SMMU_V3_GSIVS.iter().any(|gsiv| gsiv.read(self.fields) == Some(0u32))
            }
            (NodeKind::SmmuV3, 5..) => smmu_v3::FLAGS.has(self.fields, INDEX_VALID)?,
            _ => false,
        };
        let index: u32 = self.get(smmu_v3::OWN_MAPPING);
        (is_valid && index < self.get(node_head::MAPPINGS)).then(|| usize::try_from(index).ok())?
    }
}

/// Returns `count` elements of `size` bytes from offset `at` on; `None` if the elements exceed the
/// structure.
fn elements(fields: Fields<'_>, at: usize, count: u32, size: usize) -> Option<&[u8]> {
    if count == 0 {
        return Some(&[]);
    }
    fields.slice(
        Some(at).filter(|&at| at >= NODE_BYTES)?,
        usize::try_from(count).ok()?.checked_mul(size)?,
    )
}

/// An entry in a node's map from input IDs to output IDs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct IdMapping {
    /// Offset in bytes from the start of the table.
    pub(super) offset: usize,
    /// First input ID.
    pub(super) input: u32,
    /// Number of IDs minus one. Some firmware states the number of IDs instead.
    pub(super) id_count: u32,
    /// First output ID.
    pub(super) output: u32,
    /// Offset of the node that receives the output IDs.
    pub(super) target: u32,
    /// `true` if the input ID is ignored.
    pub(super) is_single: bool,
}

impl IdMapping {
    /// Returns the origin of findings about the mapping, and of facts that it states.
    pub(super) fn origin(self) -> Origin {
        origin(Signature::IORT, self.offset, "ID mapping")
    }

    fn read(offset: usize, fields: Fields<'_>) -> Option<Self> {
        Some(Self {
            offset,
            input: fields.u32(0)?,
            id_count: fields.u32(4)?,
            output: fields.u32(8)?,
            target: fields.u32(12)?,
            is_single: fields.u32(16)? & SINGLE_MAPPING != 0,
        })
    }
}
