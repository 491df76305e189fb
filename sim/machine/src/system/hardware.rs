//! The hardware of the workload's devices, which sends the messages, and its drivers' access to it.

use super::VirtualSlot;
use doorbell_hardware::pci::enumerate::FoundFunction;
use doorbell_hardware::pci::{Function, Signaled, StoreConfig};
use doorbell_hardware::platform_device::{Line, PlatformDevice, PlatformStore};
use irq_domain::pci::FunctionStore;
use irq_domain::{Host, MessageCopy};
use msi_types::{Masking, Shape};
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
    Function {
        function: Arc<Function>,
        found: Box<FoundFunction>,
        /// The slot of a function on a virtual bus.
        slot: Option<VirtualSlot>,
    },
    Platform {
        device: Arc<PlatformDevice>,
        store: Arc<PlatformStore>,
    },
}

impl DeviceHardware {
    pub(super) fn signal(&self, slot: u16) -> Signaled {
        match self {
            Self::Function { function, .. } => function.signal(slot),
            Self::Platform { device, .. } => device.signal(slot),
        }
    }

    /// Notifies the hardware before its driver is asked to release the device.
    pub(super) fn begin_removal(&self, removal: Removal) {
        match (self, removal) {
            (_, Removal::Surprise) => self.unplug(),
            (Self::Function { slot: Some(slot), .. }, Removal::Orderly) => slot.eject(),
            (_, Removal::Orderly) => {}
        }
    }

    pub(super) fn unplug(&self) {
        match self {
            Self::Function { function, slot, .. } => {
                function.unplug();
                slot.iter().for_each(VirtualSlot::unplug);
            }
            Self::Platform { device, .. } => device.unplug(),
        }
    }

    /// Inserts the device. The bus driver then configures it.
    ///
    /// # Errors
    /// Returns an error if the bus driver fails.
    pub(super) fn plug(&self) -> Result<(), String> {
        match self {
            Self::Function { function, found, slot } => {
                function.plug();
                slot.iter().for_each(VirtualSlot::plug);
                found.configure().map_err(|error| error.to_string())
            }
            Self::Platform { device, .. } => {
                device.plug();
                Ok(())
            }
        }
    }

    /// Returns the message store that the driver finds.
    pub(super) fn store(&self, host: Arc<dyn Host>) -> Result<FunctionStore, String> {
        match self {
            Self::Function { found, .. } => found.store(host).map_err(|error| error.to_string()),
            Self::Platform { store, .. } => {
                let store = Arc::clone(store) as _;
                Ok(FunctionStore { store, shape: Shape::Independent })
            }
        }
    }

    /// Returns the register that the handler writes to deassert the device's level, if the device
    /// has one.
    pub(super) fn line(&self, slot: u16) -> Option<Line> {
        match self {
            Self::Function { .. } => None,
            Self::Platform { store, .. } => store.line(slot),
        }
    }

    /// Returns the driver's function that copies messages into the device. Drivers of functions
    /// with MSI but without masks copy messages, as ath11k does.
    pub(super) fn copier(&self) -> Option<Arc<MessageCopy>> {
        let Self::Function { function, .. } = self else { return None };
        let store = function.store();
        let copies =
            matches!(store, StoreConfig::Msi { log2_vectors: 2, masking: Masking::None, .. });
        copies.then(|| function.copier())
    }

    /// Returns the message store of a PCI function; `None` for other devices.
    pub(super) fn pci_store(&self) -> Option<StoreConfig> {
        match self {
            Self::Function { function, .. } => Some(function.store()),
            Self::Platform { .. } => None,
        }
    }
}
