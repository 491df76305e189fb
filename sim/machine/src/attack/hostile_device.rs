//! A device that writes to every address that the IOMMU maps for it.

use crate::system::{Device, System};
use doorbell_hardware::bus::Doorbells;
use doorbell_hardware::iommu::Iommu;
use msi_types::{Delivery, DeviceId, MsiMessage, RequesterId, SignalMsi};
use std::cell::Cell;
use std::sync::Arc;

/// The IOMMU between devices and the bus.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IommuPages {
    /// No IOMMU.
    NoIommu,
    /// An IOMMU that maps nothing for the attacker.
    None,
    /// An IOMMU that maps the doorbell page for the attacker. Every device that sends interrupts
    /// needs this mapping.
    Doorbell,
}

/// The attacker's stream, which identifies it to the IOMMU.
const STREAM: RequesterId = RequesterId::new(1);

/// The device that performs the writes.
pub(super) struct HostileDevice {
    direct: Arc<DirectBus>,
    iommu: Option<Iommu>,
    writes: Cell<u64>,
}

/// The bus, as the attacker sees it.
struct DirectBus {
    doorbells: Arc<Doorbells>,
    device: DeviceId,
}

impl SignalMsi<RequesterId> for DirectBus {
    fn signal_msi(&self, _from: RequesterId, message: MsiMessage) -> Delivery {
        self.doorbells.signal_msi(self.device, message)
    }
}

impl HostileDevice {
    pub(super) fn new(device: &Device, system: &System, pages: IommuPages, doorbell: u64) -> Self {
        let doorbells = Arc::clone(&system.doorbells);
        let direct = Arc::new(DirectBus { doorbells, device: device.config.device_id });
        let iommu = (pages != IommuPages::NoIommu).then(|| Iommu::new(Arc::clone(&direct) as _));
        if let Some(iommu) = iommu.as_ref().filter(|_| pages == IommuPages::Doorbell) {
            iommu.map(STREAM, doorbell, doorbell);
        }
        Self { direct, iommu, writes: Cell::new(0) }
    }

    /// Writes to the attacker's own memory. The IOMMU always permits these writes, like DMA to a
    /// buffer that the driver has assigned to the device.
    pub(super) fn write_own(&self, message: MsiMessage) {
        if let Some(iommu) = self.iommu.as_ref() {
            iommu.map(STREAM, message.address, message.address);
        }
        self.send(message);
    }

    pub(super) fn write(&self, message: MsiMessage) {
        self.writes.set(self.writes.get() + 1);
        self.send(message);
    }

    /// Returns the number of writes outside the attacker's own memory.
    pub(super) fn writes(&self) -> u64 {
        self.writes.get()
    }

    /// Returns the number of writes that the IOMMU blocked.
    pub(super) fn faults(&self) -> u64 {
        self.iommu.as_ref().map_or(0, Iommu::stopped)
    }

    fn send(&self, message: MsiMessage) {
        match &self.iommu {
            Some(iommu) => iommu.signal_msi(STREAM, message),
            None => self.direct.signal_msi(STREAM, message),
        };
    }
}
