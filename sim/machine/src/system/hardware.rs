//! The hardware of the workload's devices, which sends the messages.

use super::VirtualFunction;
use doorbell_hardware::pci::{Function, Signaled, StoreConfig};
use doorbell_hardware::platform_device::PlatformDevice;
use irq_domain::MessageCopy;
use msi_types::Masking;
use std::sync::Arc;

/// The way in which a device is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Removal {
    /// The driver releases the device before its removal.
    Orderly,
    /// The device is unplugged without notice.
    Surprise,
}

/// The hardware that sends the messages.
pub(crate) enum DeviceHardware {
    Function(Arc<Function>),
    /// A function on a virtual bus.
    Virtual(VirtualFunction),
    Platform(Arc<PlatformDevice>),
}

impl DeviceHardware {
    pub(crate) fn signal(&self, slot: u16) -> Signaled {
        match self {
            Self::Function(function) => function.signal(slot),
            Self::Virtual(on_bus) => on_bus.function.signal(slot),
            Self::Platform(device) => device.signal(slot),
        }
    }

    /// Notifies the hardware before its driver is asked to release the device.
    pub(super) fn begin_removal(&self, removal: Removal) {
        match (self, removal) {
            (_, Removal::Surprise) => self.unplug(),
            (Self::Virtual(on_bus), Removal::Orderly) => on_bus.eject(),
            (Self::Function(_) | Self::Platform(_), Removal::Orderly) => {}
        }
    }

    pub(super) fn unplug(&self) {
        match self {
            Self::Function(function) => function.unplug(),
            Self::Virtual(on_bus) => on_bus.unplug(),
            Self::Platform(device) => device.unplug(),
        }
    }

    pub(super) fn plug(&self) {
        match self {
            Self::Function(function) => function.plug(),
            Self::Virtual(on_bus) => on_bus.plug(),
            Self::Platform(device) => device.plug(),
        }
    }

    /// Returns the driver's function that copies messages into the device. Drivers of functions
    /// with MSI but without masks copy messages, as ath11k does.
    pub(super) fn copier(&self) -> Option<Arc<MessageCopy>> {
        let function = match self {
            Self::Function(function) => function,
            Self::Virtual(on_bus) => &on_bus.function,
            Self::Platform(_) => return None,
        };
        let store = function.store();
        let copies =
            matches!(store, StoreConfig::Msi { log2_vectors: 2, masking: Masking::None, .. });
        copies.then(|| function.copier())
    }

    /// Returns the message store of a PCI function; `None` for other devices.
    pub(super) fn pci_store(&self) -> Option<StoreConfig> {
        match self {
            Self::Function(function) => Some(function.store()),
            Self::Virtual(on_bus) => Some(on_bus.function.store()),
            Self::Platform(_) => None,
        }
    }
}
