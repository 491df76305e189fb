//! An SMMU that the guest owns. Its devices' messages reach us only through the guest's own
//! translations.
//!
//! The guest has the SMMU's registers and interrupts, and we do not use the SMMU. The guest's only
//! redistributor is at the address of the machine's `GITS_TRANSLATER`, which has the same offset in
//! its frame as `GICR_SETLPIR`. So if the guest maps the doorbell of its redistributor for a
//! device, the device reaches the machine's ITS; accesses by the guest's vCPU trap as usual.
//!
//! A device stores the address that the guest wrote, and the data of the physical event. When that
//! event arrives, the SMMU has translated the address to the doorbell; we then signal the data that
//! the guest wrote.

use crate::irqchip;
use alloc::vec::Vec;
use core::ops::Range;
use gic_arch::{gicr, gits};
use gic_bringup::MsiController;
use gic_firmware::PciHost;
use irq_routing::{Access, TranslateMsi};
use msi_types::DeviceId;
use vgic::RedistributorRegion;

/// Size of a frame of the ITS, and of a redistributor.
const FRAME: u64 = 0x1_0000;

/// The SMMU in front of a PCI host.
#[derive(Clone, Debug)]
pub(crate) struct GuestSmmu {
    pub(crate) registers: Range<u64>,
    /// INTIDs of the event queue, the PRI queue, `CMD_SYNC` and global errors (binding
    /// `arm,smmu-v3`).
    pub(crate) interrupts: Vec<u32>,
    /// Address of the frame with `GITS_TRANSLATER`.
    frame: u64,
}

impl GuestSmmu {
    /// Finds the SMMU in front of a host. Panics if the machine lacks one, or has no ITS.
    pub(crate) fn find(host: &PciHost) -> Self {
        let description = irqchip::get().description();
        let index = host.iommu.map.first().and_then(|entry| entry.value.iommu);
        let iommu = index.and_then(|index| description.iommu(index));
        let iommu = iommu.expect("no SMMU is in front of PCI: start QEMU with iommu=smmuv3");
        let region = iommu.registers.as_ref().expect("the SMMU has registers").value;
        let user = description.wired.iter().find(|user| user.id == iommu.id);
        let interrupts = user.into_iter().flat_map(|user| &user.interrupts);
        let frame = irqchip::get().controllers().find_map(|(_, it)| match it {
            MsiController::Its(its) => Some(its.doorbell() & !(FRAME - 1)),
            _ => None,
        });
        Self {
            registers: region.base()..region.base() + region.size(),
            interrupts: interrupts.map(|interrupt| interrupt.value.get()).collect(),
            frame: frame.expect("the machine has an ITS"),
        }
    }

    /// Returns the place of the guest's only redistributor.
    pub(crate) fn redistributor(&self) -> RedistributorRegion {
        const {
            assert!(gits::TRANSLATER.offset() as u64 % FRAME == gicr::SETLPIR.offset() as u64);
        }
        RedistributorRegion::new(self.frame, 1)
    }
}

/// The SMMU has translated a message before its event arrives.
impl TranslateMsi for GuestSmmu {
    fn translate(&self, _: DeviceId, iova: u64, _: Access) -> Option<u64> {
        const PAGE: u64 = 0x1000;
        Some(self.frame | iova & (PAGE - 1))
    }
}
