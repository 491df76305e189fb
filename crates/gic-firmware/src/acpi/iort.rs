//! The IORT maps requester IDs through IOMMUs to an ITS (Arm DEN 0049, revisions A to E.g).

use super::fields::{
    INDEX_VALID, SMMU_V3_GSIVS, iort_header, its_group, iwb, named_component, node_head,
    node_start, pmcg, redistributor_group, rmr, root_complex, smmu_v2, smmu_v3,
};
use super::places::origin;
use super::table::{Fields, Signature, Table, TableError, TableErrorKind};
use crate::origin::Origin;

/// Length in bytes of the header common to all nodes.
pub(super) const NODE_BYTES: usize = 16;
/// Length of an ID mapping in bytes.
pub(super) const MAPPING_BYTES: usize = 20;
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
    pub fn stated_nodes(self) -> u32 {
        iort_header::NODES.read(self.0.fields()).unwrap_or_default()
    }

    /// Returns the nodes in order. If an error makes the offset of the next node unknown, the
    /// iterator ends after the error.
    pub fn nodes(self) -> IortNodeIter<'a> {
        IortNodeIter { left: self.stated_nodes(), ..self.nodes_to_end() }
    }

    /// Returns the nodes in order, regardless of the number of nodes that the table states.
    pub(super) fn nodes_to_end(self) -> IortNodeIter<'a> {
        let at = iort_header::FIRST_NODE.read(self.0.fields()).unwrap_or_default();
        IortNodeIter { table: self.0, at, left: u32::MAX }
    }
}

/// A node of an IORT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IortNode<'a> {
    /// Offset in bytes from the start of the table, by which other nodes refer to this node.
    pub offset: usize,
    /// Revision of the node's layout.
    pub revision: u8,
    /// Unique identifier; reserved before revision E.b of the specification.
    pub identifier: u32,
    /// Contents of the node.
    pub contents: IortContents<'a>,
    mappings: &'a [u8],
    /// Offset of the mappings from the start of the table.
    mappings_at: usize,
}

impl<'a> IortNode<'a> {
    /// Returns the ID mappings in order.
    pub fn mappings(self) -> impl Iterator<Item = IdMapping> + use<'a> {
        let offsets = (self.mappings_at..).step_by(MAPPING_BYTES);
        self.mappings
            .chunks_exact(MAPPING_BYTES)
            .zip(offsets)
            .filter_map(|(bytes, offset)| IdMapping::read(offset, Fields(bytes)))
    }

    /// Returns the bytes of the node, or those before its first mapping, where its fields end.
    pub(super) fn before_mappings(self, node: Fields<'_>) -> Fields<'_> {
        let first =
            self.mappings().next().map(|mapping| mapping.offset.saturating_sub(self.offset));
        Fields(first.and_then(|first| node.0.get(..first)).unwrap_or(node.0))
    }

    /// Returns the origin of findings about an item of the node.
    pub(super) fn origin(self, item: &'static str) -> Origin {
        origin(Signature::IORT, self.offset, item)
    }

    /// Returns the index of the mapping for messages that the node itself sends, as opposed to
    /// messages that pass through it. Only an SMMUv3 or a PMCG has such a mapping.
    pub fn own_mapping(self) -> Option<usize> {
        match self.contents {
            IortContents::SmmuV3(smmu) => usize::try_from(smmu.own_mapping?).ok(),
            IortContents::Pmcg(pmcg) => (pmcg.overflow_gsiv == 0).then_some(0),
            _ => None,
        }
    }

    fn read(table: Table<'a>, offset: usize, bytes: &'a [u8]) -> Result<Self, TableError> {
        let fields = Fields(bytes);
        let kind = fields.u8(0).unwrap_or_default();
        let short = TableErrorKind::ShortStructure { kind, length: bytes.len() };
        let contents = IortContents::read(fields).ok_or(table.error(offset, short))?;
        let count = node_head::MAPPINGS.read(fields).unwrap_or_default();
        let array = node_head::FIRST_MAPPING.read(fields).unwrap_or_default();
        if let IortContents::ItsGroup(ItsGroup { stated, ids }) = contents
            && usize::try_from(stated).ok() != Some(ids.len() / 4)
        {
            return Err(table.error(offset, TableErrorKind::Array(stated)));
        }
        let mappings = elements(fields, array, count, MAPPING_BYTES);
        Ok(Self {
            offset,
            revision: node_head::REVISION.read(fields).unwrap_or_default(),
            identifier: node_head::IDENTIFIER.read(fields).unwrap_or_default(),
            contents,
            mappings: mappings.ok_or(table.error(offset, TableErrorKind::Array(count)))?,
            mappings_at: usize::try_from(array)
                .map_or(offset, |array| offset.saturating_add(array)),
        })
    }
}

/// Returns `count` elements of `size` bytes from offset `at` on; `None` if the elements exceed the
/// structure.
fn elements(fields: Fields<'_>, at: u32, count: u32, size: usize) -> Option<&[u8]> {
    if count == 0 {
        return Some(&[]);
    }
    let at = usize::try_from(at).ok().filter(|&at| at >= NODE_BYTES)?;
    fields.slice(at, usize::try_from(count).ok()?.checked_mul(size)?)
}

/// The contents of an IORT node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IortContents<'a> {
    /// ITS group (type 0).
    ItsGroup(ItsGroup<'a>),
    /// Named component (type 1): a device in the ACPI namespace.
    NamedComponent(NamedComponent<'a>),
    /// PCI root complex (type 2).
    RootComplex(RootComplex),
    /// SMMUv1 or SMMUv2 (type 3).
    SmmuV2(SmmuV2),
    /// SMMUv3 (type 4).
    SmmuV3(SmmuV3),
    /// Performance monitor counter group (type 5).
    Pmcg(Pmcg),
    /// Reserved memory ranges (type 6).
    Rmr,
    /// GICv5 Interrupt Wire Bridge (type 7).
    Iwb,
    /// This project's **draft** node (type 31 with a magic number), which stands for the direct LPI
    /// doorbells of all redistributors.
    DraftRedistributorGroup,
    /// Node of an unknown type.
    Other(u8),
}

/// ITSes that serve the same requesters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ItsGroup<'a> {
    stated: u32,
    ids: &'a [u8],
}

impl<'a> ItsGroup<'a> {
    /// Returns the IDs that the MADT assigns to the ITSes. Operating systems use the first ITS.
    pub fn ids(self) -> impl Iterator<Item = u32> + use<'a> {
        self.ids.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id))
    }
}

/// A device in the ACPI namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamedComponent<'a> {
    /// Full path of the device's object, such as `\_SB.DMA0`.
    pub path: &'a str,
    /// Number of address bits in the device's writes.
    pub address_bits: u8,
}

/// A PCI root complex.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RootComplex {
    /// PCI segment group.
    pub segment: u32,
    /// `true` if PCI Address Translation Services are supported.
    pub ats: bool,
    /// Number of address bits in the functions' writes; 0 if not stated (revision 0).
    pub address_bits: u8,
}

/// An SMMUv1 or SMMUv2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SmmuV2 {
    /// Address of the registers.
    pub base: u64,
    /// Size of the registers in bytes.
    pub span: u64,
    /// Model number.
    pub model: u32,
}

impl SmmuV2 {
    /// Returns the compatible string that devicetrees use for the model.
    pub const fn compatible(self) -> &'static str {
        match self.model {
            0 => "arm,smmu-v1",
            2 => "arm,mmu-400",
            3 => "arm,mmu-500",
            4 => "arm,mmu-401",
            5 => "cavium,smmu-v2",
            _ => "arm,smmu-v2",
        }
    }
}

/// An SMMUv3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SmmuV3 {
    /// Address of the registers.
    pub base: u64,
    /// Index of the mapping for the SMMU's own messages; `None` if all of its interrupts are wired.
    pub own_mapping: Option<u32>,
}

/// A performance monitor counter group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pmcg {
    /// Address of the group's first register page.
    pub page_0: u64,
    /// GSIV of the group's overflow interrupt; 0 if the group sends a message instead, which the
    /// first mapping translates.
    pub overflow_gsiv: u32,
}

impl<'a> IortContents<'a> {
    /// Reads the contents of a node; returns `None` if the node is too short.
    fn read(node: Fields<'a>) -> Option<Self> {
        let revision: u8 = node_head::REVISION.read(node)?;
        Some(match node.u8(0)? {
            its_group::KIND => {
                let (stated, at) = (its_group::ITSES.read(node)?, its_group::LAYOUT.first);
                let rest = node.0.get(usize::from(at)..)?;
                let ids = elements(node, at.into(), stated, 4).unwrap_or(rest);
                Self::ItsGroup(ItsGroup { stated, ids })
            }
            named_component::KIND => {
                let address_bits = named_component::ADDRESS_BITS.read(node)?;
                let rest = node.0.get(usize::from(named_component::LAYOUT.first)..)?;
                let length = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
                let path = core::str::from_utf8(rest.get(..length)?).ok()?;
                Self::NamedComponent(NamedComponent { path, address_bits })
            }
            root_complex::KIND => Self::RootComplex(RootComplex {
                segment: root_complex::SEGMENT.read(node)?,
                ats: root_complex::ATS.has(node, 1)?,
                address_bits: match revision {
                    0 => 0,
                    _ => root_complex::ADDRESS_BITS.read(node)?,
                },
            }),
            smmu_v2::KIND => Self::SmmuV2(SmmuV2 {
                base: smmu_v2::BASE.read(node)?,
                span: smmu_v2::SPAN.read(node)?,
                model: smmu_v2::MODEL.read(node)?,
            }),
            smmu_v3::KIND => Self::SmmuV3(SmmuV3::read(revision, node)?),
            pmcg::KIND => Self::Pmcg(Pmcg {
                page_0: pmcg::PAGE_0.read(node)?,
                overflow_gsiv: pmcg::OVERFLOW_GSIV.read(node)?,
            }),
            rmr::KIND => Self::Rmr,
            iwb::KIND => Self::Iwb,
            redistributor_group::KIND
                if revision == DRAFT_REVISION && node.array(NODE_BYTES) == Some(DRAFT_MARK) =>
            {
                node.slice(0, redistributor_group::LAYOUT.first.into())?;
                Self::DraftRedistributorGroup
            }
            other => Self::Other(other),
        })
    }
}

impl SmmuV3 {
    /// Reads an SMMUv3 node. Revision 0 has no mapping index for the SMMU's own messages. Up to
    /// revision 4, the index is valid unless all interrupts are wired; later revisions have a flag
    /// that states whether the index is valid.
    fn read(revision: u8, node: Fields<'_>) -> Option<Self> {
        let index = if revision == 0 { None } else { Some(smmu_v3::OWN_MAPPING.read(node)?) };
        let is_valid = match revision {
            0..=4 => SMMU_V3_GSIVS.iter().any(|gsiv| gsiv.read(node) == Some(0u32)),
            _ => smmu_v3::FLAGS.has(node, INDEX_VALID)?,
        };
        let count = node_head::MAPPINGS.read(node)?;
        Some(Self {
            base: smmu_v3::BASE.read(node)?,
            own_mapping: index.filter(|&index| is_valid && index < count),
        })
    }
}

/// An entry in a node's map from input IDs to output IDs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdMapping {
    /// Offset in bytes from the start of the table.
    pub offset: usize,
    /// First input ID.
    pub input: u32,
    /// Number of IDs minus one. Some firmware states the number of IDs instead.
    pub id_count: u32,
    /// First output ID.
    pub output: u32,
    /// Offset of the node that receives the output IDs.
    pub target: u32,
    /// `true` if the input ID is ignored.
    pub is_single: bool,
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

/// An iterator over the nodes of an IORT.
#[derive(Clone, Debug)]
pub struct IortNodeIter<'a> {
    table: Table<'a>,
    at: usize,
    left: u32,
}

impl<'a> Iterator for IortNodeIter<'a> {
    type Item = Result<IortNode<'a>, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let offset = self.at;
        let rest = Fields(self.table.bytes().get(offset..).unwrap_or_default());
        let length = node_start::LENGTH.read(rest).unwrap_or(rest.0.len());
        let Some(bytes) = rest.slice(0, length).filter(|bytes| bytes.len() >= NODE_BYTES) else {
            self.left = 0;
            return Some(Err(self.table.error(offset, TableErrorKind::StructureLength(length))));
        };
        self.at = offset.saturating_add(length);
        Some(IortNode::read(self.table, offset, bytes))
    }
}
