//! The doorbells of a machine's controllers.

use crate::controller::{Controller, ControllerKind, SET_REGISTER};
use crate::description::Description;
use crate::region::Region;
use alloc::vec::Vec;
use msi_types::DeviceId;

/// Distance between redistributors of a GICv3 that states none.
const DEFAULT_STRIDE: u64 = 0x2_0000;

impl Description {
    /// Returns the address of each doorbell of `controller`. CPU physical, before any IOMMU.
    ///
    /// One for an ITS (a pre-ITS window's first word), MBI and v2m; none for foreign controllers.
    /// Direct LPI has one per redistributor as far as regions and stride tell, at most one per CPU.
    pub fn doorbells(&self, controller: &Controller) -> Vec<u64> {
        match (&controller.kind, self.gic_of(controller)) {
            (ControllerKind::DirectLpi, Some(gic)) => {
                let stride =
                    gic.redistributor_stride.as_ref().map_or(DEFAULT_STRIDE, |stride| stride.value);
                gic.redistributors
                    .iter()
                    .flat_map(|region| frames(region.value, stride))
                    .filter_map(|frame| frame.checked_add(SET_REGISTER))
                    .take(self.cpus.len())
                    .collect()
            }
            _ => controller.doorbell(DeviceId::new(0)).into_iter().collect(),
        }
    }
}

/// The redistributor frames that fit into `region`.
fn frames(region: Region, stride: u64) -> impl Iterator<Item = u64> {
    let count = region.size().checked_div(stride).unwrap_or(0);
    (0..count).map(move |index| region.base() + index * stride)
}
