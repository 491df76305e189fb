//! References to controllers and IOMMUs, and maps to them.

use super::error::{WriteError, WriteErrorKind};
use super::properties::{self, Routing};
use crate::controller::{Controller, ControllerKind};
use crate::description::Description;
use crate::iommu::{Iommu, IommuIndex, IommuRouting};
use crate::origin::{Fact, NodeId};
use crate::requester::{MapEntry, MsiRouting, Parent, PlatformDevice, Target};
use alloc::vec::Vec;

/// The nodes that a description's references lead to.
pub(super) struct References<'d> {
    pub(super) controllers: &'d [Controller],
    pub(super) iommus: &'d [Iommu],
    /// `#iommu-cells` of each IOMMU.
    iommu_cells: Vec<usize>,
}

/// Returns the `#iommu-cells` of each IOMMU: the length of the longest specifier in a reference to
/// the IOMMU, or 1 if no reference exists.
fn iommu_cells(description: &Description) -> Vec<usize> {
    let devices = || description.devices.iter().chain(&description.iommu_users);
    let named = devices().flat_map(|device| &device.iommus);
    let named = named.map(|reference| (reference.iommu, reference.specifier.len()));
    let hosts = description.hosts.iter().map(|host| &host.iommu);
    let maps = hosts.chain(devices().map(|device| &device.iommu));
    let entries = maps.flat_map(|routing| &routing.map);
    let mapped = entries
        .filter_map(|entry| Some((entry.iommu?, usize::from(entry.stream_id_base.is_some()))));
    let mut cells = alloc::vec![None; description.iommus.len()];
    for (iommu, count) in named.chain(mapped) {
        if let Some(known) = cells.get_mut(iommu.get()) {
            *known = (*known).max(Some(count));
        }
    }
    cells.into_iter().map(|count| count.unwrap_or(1)).collect()
}

impl<'d> References<'d> {
    pub(super) fn of(description: &'d Description) -> Self {
        Self {
            controllers: &description.controllers,
            iommus: &description.iommus,
            iommu_cells: iommu_cells(description),
        }
    }

    pub(super) fn iommu_phandle(&self, id: &NodeId, index: IommuIndex) -> Result<u32, WriteError> {
        let place = Some(index.get()).filter(|&place| place < self.iommus.len());
        let number = place.and_then(|place| u32::try_from(self.controllers.len() + place + 1).ok());
        number.ok_or_else(|| WriteErrorKind::Nowhere.of(id))
    }

    pub(super) fn cells_at(&self, iommu: IommuIndex) -> usize {
        self.iommu_cells.get(iommu.get()).copied().unwrap_or(1)
    }

    /// Returns the cells of references to IOMMUs, with each specifier padded with zeroes to the
    /// IOMMU's `#iommu-cells`.
    pub(super) fn passed(&self, device: &PlatformDevice) -> Result<Vec<u32>, WriteError> {
        let mut cells = Vec::new();
        for reference in &device.iommus {
            cells.push(self.iommu_phandle(&device.id, reference.iommu)?);
            let count = self.cells_at(reference.iommu);
            let filled = reference.specifier.iter().copied().chain(core::iter::repeat(0));
            cells.extend(filled.take(count));
        }
        Ok(cells)
    }

    pub(super) fn streams(
        &self,
        id: &NodeId,
        routing: &IommuRouting,
    ) -> Result<Vec<u32>, WriteError> {
        let mut words = Vec::new();
        for entry in &routing.map {
            let iommu = entry.iommu.ok_or_else(|| WriteErrorKind::Nowhere.of(id))?;
            let count = self.cells_at(iommu);
            if entry.stream_id_base.is_none() && count > 0 {
                return Err(WriteErrorKind::Specifier.of(id));
            }
            words.extend([entry.rid_base.get(), self.iommu_phandle(id, iommu)?]);
            let output = entry.stream_id_base.unwrap_or_default();
            properties::map_output(&mut words, output, count, entry.length)
                .ok_or_else(|| WriteErrorKind::Inexpressible.of(id))?;
        }
        Ok(words)
    }

    pub(super) fn routing(&self, id: &NodeId, msi: &MsiRouting) -> Result<Routing, WriteError> {
        let map = msi.map.as_ref().map(|map| self.map(id, map)).transpose()?;
        let mut parents = Vec::new();
        for parent in &msi.parents {
            self.parent(id, parent, &mut parents)?;
        }
        Ok(Routing { mask: msi.mask.as_ref().map(|mask| mask.value), map, parents })
    }

    fn map(&self, id: &NodeId, map: &[Fact<MapEntry>]) -> Result<Vec<u32>, WriteError> {
        let mut words = Vec::new();
        for entry in map {
            let (phandle, controller) = self.reference(id, entry.target)?;
            // Without `#msi-cells`, a map entry has one cell for the DeviceID.
            let count = match controller.msi_cells.value {
                0 if controller.kind != ControllerKind::DirectLpi => 1,
                count => usize::try_from(count).unwrap_or(usize::MAX),
            };
            words.extend([entry.rid_base.get(), phandle]);
            properties::map_output(&mut words, entry.device_id_base.get(), count, entry.length)
                .ok_or_else(|| WriteErrorKind::Inexpressible.of(id))?;
        }
        Ok(words)
    }

    fn parent(&self, id: &NodeId, parent: &Parent, cells: &mut Vec<u32>) -> Result<(), WriteError> {
        let (phandle, controller) = self.reference(id, parent.target)?;
        if usize::try_from(controller.msi_cells.value) != Ok(parent.specifier.len()) {
            return Err(WriteErrorKind::Specifier.of(id));
        }
        cells.push(phandle);
        cells.extend(&parent.specifier);
        Ok(())
    }

    /// Returns the phandle of `target`, and the controller. The phandles of controllers start at 1.
    fn reference(&self, id: &NodeId, target: Target) -> Result<(u32, &Controller), WriteError> {
        let nowhere = || WriteErrorKind::Nowhere.of(id);
        let Target::Controller(index) = target else { return Err(nowhere()) };
        let controller = self.controllers.get(index.get()).ok_or_else(nowhere)?;
        let phandle = u32::try_from(index.get() + 1).map_err(|_| nowhere())?;
        Ok((phandle, controller))
    }
}
