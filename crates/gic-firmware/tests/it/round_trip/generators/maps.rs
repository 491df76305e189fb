//! Generates MSI routings, and IOMMUs in front of requesters.

use super::{regions, statuses};
use gic_firmware::{
    Controller, ControllerIndex, Fact, Iommu, IommuIndex, IommuReference, IommuRouting, MapEntry,
    MsiRouting, Parent, Region, StreamEntry, Target,
};
use msi_types::{DeviceId, RequesterId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Generates map entries whose targets are controllers with these numbers of cells.
fn map_entries(cells: Vec<u32>) -> impl Strategy<Value = MapEntry> {
    (any::<u32>(), 0..0x2_0000u32, 0..cells.len(), any::<u32>()).prop_map(
        move |(rid, length, controller, device)| MapEntry {
            rid_base: RequesterId::new(rid & 0x1_ffff),
            // An entry with several cells holds at most one requester.
            length: if cells[controller] > 1 { length & 1 } else { length },
            target: Target::Controller(ControllerIndex::new(controller)),
            device_id_base: DeviceId::new(device),
        },
    )
}

fn parents(controllers: &[Controller]) -> BoxedStrategy<Vec<Fact<Parent>>> {
    if controllers.is_empty() {
        return Just(Vec::new()).boxed();
    }
    let cells: Vec<_> =
        controllers.iter().map(|controller| controller.msi_cells.value as usize).collect();
    let parent = (0..cells.len(), any::<[u32; 4]>()).prop_map(move |(index, specifier)| {
        Fact::stated(Parent {
            target: Target::Controller(ControllerIndex::new(index)),
            specifier: specifier[..cells[index]].to_vec(),
        })
    });
    vec(parent, 0..4).boxed()
}

/// Generates MSI routings to `controllers`.
pub(super) fn routings(controllers: &[Controller]) -> BoxedStrategy<MsiRouting> {
    let cells: Vec<_> = controllers.iter().map(|controller| controller.msi_cells.value).collect();
    let map = if cells.is_empty() {
        Just(None).boxed()
    } else {
        option::of(vec(map_entries(cells).prop_map(Fact::stated), 1..6)).boxed()
    };
    let masks = option::of(prop_oneof![Just(0xffffu32), Just(0xfff8), any::<u32>()]);
    (map, masks, parents(controllers))
        .prop_map(|(map, mask, parents)| MsiRouting { mask: mask.map(Fact::stated), map, parents })
        .boxed()
}

/// Number of cells after a reference to each IOMMU.
const IOMMU_CELLS: [usize; 3] = [1, 2, 0];

pub(super) fn iommus() -> impl Strategy<Value = Vec<Iommu>> {
    vec((statuses(), option::of(regions())), IOMMU_CELLS.len()).prop_map(|iommus| {
        let iommu = |(index, (status, registers)): (usize, (_, Option<Region>))| Iommu {
            id: format!("/iommu@{index}").as_str().into(),
            compatible: vec!["arm,smmu-v3".into()],
            status,
            registers: registers.map(Fact::stated),
        };
        iommus.into_iter().enumerate().map(iommu).collect()
    })
}

/// Generates the IOMMUs that translate accesses of requesters behind a bus.
pub(super) fn streams() -> impl Strategy<Value = IommuRouting> {
    let entry = (any::<u32>(), any::<u32>(), 0..IOMMU_CELLS.len(), any::<u32>());
    let entry = entry.prop_map(|(rid_base, length, iommu, stream_id)| {
        Fact::stated(StreamEntry {
            rid_base: RequesterId::new(rid_base),
            length: if IOMMU_CELLS[iommu] > 1 { length & 1 } else { length },
            iommu: Some(IommuIndex::new(iommu)),
            stream_id_base: (IOMMU_CELLS[iommu] > 0).then_some(stream_id),
        })
    });
    let some = (option::of(any::<u32>()), vec(entry, 1..4))
        .prop_map(|(mask, map)| IommuRouting { mask: mask.map(Fact::stated), map });
    prop_oneof![Just(IommuRouting::default()), some]
}

/// Generates the IOMMUs that translate a device's accesses.
pub(super) fn passages() -> impl Strategy<Value = Vec<Fact<IommuReference>>> {
    let reference = (0..IOMMU_CELLS.len(), any::<[u32; 2]>()).prop_map(|(iommu, cells)| {
        let specifier = cells[..IOMMU_CELLS[iommu]].to_vec();
        Fact::stated(IommuReference { iommu: IommuIndex::new(iommu), specifier })
    });
    vec(reference, 0..3)
}
