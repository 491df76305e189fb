//! IOMMUs between requesters and memory.

use crate::origin::{Fact, NodeId};
use crate::region::Region;
use crate::status::Status;
use alloc::string::String;
use alloc::vec::Vec;
use msi_types::RequesterId;

/// An IOMMU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Iommu {
    /// Node of the IOMMU. If the IOMMU sends MSIs itself, a platform device with the same node also
    /// exists.
    pub id: NodeId,
    /// Compatible strings, most specific first.
    pub compatible: Vec<String>,
    /// Status of the IOMMU according to firmware.
    pub status: Fact<Status>,
    /// Registers of the IOMMU.
    pub registers: Option<Fact<Region>>,
}

/// Index of an IOMMU in [`Description::iommus`](crate::Description::iommus).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IommuIndex(usize);

impl IommuIndex {
    /// Creates the index of the IOMMU at this position.
    pub const fn new(index: usize) -> Self {
        Self(index)
    }

    /// Returns the IOMMU's position in the list.
    pub const fn get(self) -> usize {
        self.0
    }
}

/// A device's reference to the IOMMU that translates its accesses.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct IommuReference {
    /// Referenced IOMMU.
    pub iommu: IommuIndex,
    /// Cells after the phandle in the reference; for an SMMU, the StreamID, optionally followed by
    /// a mask.
    pub specifier: Vec<u32>,
}

impl IommuReference {
    /// Returns the StreamID, which is the first cell; `None` if the reference has no cells.
    pub fn stream_id(&self) -> Option<u32> {
        self.specifier.first().copied()
    }
}

/// Map from requester IDs behind a PCI host (or another bus) to IOMMU StreamIDs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IommuRouting {
    /// Mask applied to a requester ID before it is looked up in [`map`](Self::map); an absent mask
    /// means all ones (`iommu-map-mask`).
    pub mask: Option<Fact<u32>>,
    /// Entries by requester ID (`iommu-map`, or an IORT's mappings to SMMUs). The accesses of a
    /// requester without an entry pass through no IOMMU.
    pub map: Vec<Fact<StreamEntry>>,
}

impl IommuRouting {
    /// Returns the IOMMU that translates accesses of `requester`, and the requester's StreamID at
    /// that IOMMU. Returns `None` if no IOMMU translates them, if the reference to the IOMMU is
    /// broken, or if the IOMMU has no StreamIDs.
    ///
    /// As for `msi-map`, the first entry that contains the masked ID is used. The search ends at an
    /// entry whose first ID has bits that the mask clears.
    pub fn stream(&self, requester: RequesterId) -> Option<(IommuIndex, u32)> {
        let mask = self.mask.as_ref().map_or(u32::MAX, |mask| mask.value);
        let masked = requester.get() & mask;
        for entry in &self.map {
            let first = entry.rid_base.get();
            if first & !mask != 0 {
                return None;
            }
            if let Some(offset) = masked.checked_sub(first).filter(|&offset| offset < entry.length)
            {
                return Some((entry.iommu?, entry.stream_id_base?.checked_add(offset)?));
            }
        }
        None
    }
}

/// One entry of a map from requester IDs to StreamIDs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StreamEntry {
    /// First requester ID.
    pub rid_base: RequesterId,
    /// Number of requester IDs.
    pub length: u32,
    /// IOMMU that translates the requesters' accesses; `None` if the reference is broken, or if the
    /// entry does not define the StreamID of each requester. A finding then states the reason.
    pub iommu: Option<IommuIndex>,
    /// StreamID of the first requester; `None` if `#iommu-cells` of the IOMMU is 0.
    pub stream_id_base: Option<u32>,
}
