//! Computes the doorbell addresses of MSI controllers.

use crate::controller::{Controller, ControllerKind, SET_REGISTER};
use crate::description::Description;
use crate::region::Region;
use alloc::vec::Vec;
use msi_types::DeviceId;

/// Distance between GICv3 redistributors in bytes, if firmware states none.
const DEFAULT_STRIDE: u64 = 0x2_0000;

impl Description {
    /// Returns the CPU physical address of each doorbell of `controller`, without translation by an
    /// IOMMU.
    ///
    /// An ITS, MBI and a v2m frame each have one doorbell; for an ITS with a pre-ITS, it is the
    /// first word of the window. Foreign controllers have no known doorbell. Direct LPI has one
    /// doorbell per redistributor that the regions and the stride describe, but at most one per
    /// CPU.
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

/// Returns the addresses of the redistributors that fit into `region`.
fn frames(region: Region, stride: u64) -> impl Iterator<Item = u64> {
    let count = region.size().checked_div(stride).unwrap_or(0);
    (0..count).map(move |index| region.base() + index * stride)
}
