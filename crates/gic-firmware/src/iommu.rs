//! IOMMUs between requesters and memory, as firmware describes them.

use crate::origin::{Fact, NodeId};
use crate::region::Region;
use crate::status::Status;
use alloc::string::String;
use alloc::vec::Vec;
use msi_types::RequesterId;

/// An IOMMU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Iommu {
    /// Its node. If it signals by message, a platform device has the same.
    pub id: NodeId,
    /// Its compatible strings, most specific first.
    pub compatible: Vec<String>,
    /// State that firmware gives it.
    pub status: Fact<Status>,
    /// Its registers.
    pub registers: Option<Fact<Region>>,
}

/// An IOMMU, as its place in [`Description::iommus`](crate::Description::iommus).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IommuIndex(usize);

impl IommuIndex {
    /// The IOMMU at this place.
    pub const fn new(index: usize) -> Self {
        Self(index)
    }

    /// Its place.
    pub const fn get(self) -> usize {
        self.0
    }
}

/// An IOMMU that a device passes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct IommuReference {
    /// The IOMMU.
    pub iommu: IommuIndex,
    /// Cells after the reference; at an SMMU the StreamID, and perhaps a mask beside it.
    pub specifier: Vec<u32>,
}

impl IommuReference {
    /// The StreamID: the first cell. `None` if the reference has none.
    pub fn stream_id(&self) -> Option<u32> {
        self.specifier.first().copied()
    }
}

/// The way of the devices behind a PCI host or another bus through IOMMUs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IommuRouting {
    /// Applied to a requester ID before [`map`](Self::map) is asked; absent = all ones
    /// (`iommu-map-mask`).
    pub mask: Option<Fact<u32>>,
    /// By requester ID (`iommu-map`, or an IORT's mappings to SMMUs). What it leaves out passes no
    /// IOMMU.
    pub map: Vec<Fact<StreamEntry>>,
}

impl IommuRouting {
    /// Returns the IOMMU that `requester` passes, and its StreamID there. Returns `None` if it
    /// passes no IOMMU, if the reference is broken, or if the IOMMU takes no StreamIDs.
    ///
    /// As for `msi-map`, the first entry that holds the masked ID is used. An entry whose first ID
    /// has bits that the mask clears ends the search.
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

/// One line of a map from requester IDs to StreamIDs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StreamEntry {
    /// First requester ID.
    pub rid_base: RequesterId,
    /// Number of requester IDs.
    pub length: u32,
    /// The IOMMU; `None` if the reference is broken, or if the entry does not define the StreamID
    /// of each requester. A finding states which.
    pub iommu: Option<IommuIndex>,
    /// StreamID of the first requester; `None` if references to the IOMMU have no cells.
    pub stream_id_base: Option<u32>,
}
