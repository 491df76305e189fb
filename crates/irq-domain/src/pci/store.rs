//! A function's message store: MSI-X if available, otherwise MSI.

use super::{ConfigSpace, MsiStore, MsixCapability, MsixParts, MsixStore, PciError, TableMemory};
use crate::host::Host;
use alloc::sync::Arc;
use core::fmt;
use msi_types::{MessageStore, Shape};

/// A function's message store, and the shape in which to [allocate](crate::MsiDevice::allocate) its
/// vectors.
#[derive(Clone)]
pub struct FunctionStore {
    /// The store.
    pub store: Arc<dyn MessageStore>,
    /// Independent vectors (MSI-X), or an aligned group (MSI).
    pub shape: Shape,
}

/// Creates a function's message store: MSI-X if the function has it, otherwise MSI. `map` must map
/// the memory region of a base address register. The closure is only called for MSI-X.
///
/// Context: task; may sleep.
///
/// # Errors
/// This function can return any [`PciError`] except [`PciError::NoCapability`]. If the function has
/// an MSI-X capability that cannot be used, the result is an error; a caller that wants to use MSI
/// instead must call [`MsiStore::new`].
///
/// # Example
/// ```
/// use irq_domain::pci::{ConfigSpace, TableMemory, find_store};
/// use irq_domain::{Host, Interrupts, MsiDevice, MsiDeviceConfig};
/// use msi_types::{MsiParent, RequesterId};
/// use std::{error::Error, sync::Arc};
///
/// /// Gives a function up to 32 vectors. `map` maps one of its memory regions.
/// fn attach(
///     interrupts: &Interrupts,
///     host: Arc<dyn Host>,
///     parent: Arc<dyn MsiParent>, // from firmware
///     (requester, config): (RequesterId, Arc<dyn ConfigSpace>),
///     map: impl FnMut(u8) -> Option<Arc<dyn TableMemory>>,
/// ) -> Result<MsiDevice, Box<dyn Error>> {
///     let found = find_store(config, host, map)?;
///     let config = MsiDeviceConfig::new("nvme0", requester, parent, found.store);
///     let device = MsiDevice::attach(interrupts, config)?;
///     device.allocate(found.shape, 1..=32)?;
///     Ok(device)
/// }
/// ```
pub fn find_store(
    config: Arc<dyn ConfigSpace>,
    host: Arc<dyn Host>,
    mut map: impl FnMut(u8) -> Option<Arc<dyn TableMemory>>,
) -> Result<FunctionStore, PciError> {
    let capability = match MsixCapability::find(&*config) {
        Ok(capability) => capability,
        Err(PciError::NoCapability { .. }) => return msi(config, host),
        Err(error) => return Err(error),
    };
    let [table, pending] = [capability.table.bir(), capability.pending.bir()]
        .map(|bir| map(bir).ok_or(PciError::NotMapped { bir }));
    let store = MsixStore::new(MsixParts::new(capability, config, table?, pending?, host))?;
    Ok(FunctionStore { store: Arc::new(store), shape: Shape::Independent })
}

fn msi(config: Arc<dyn ConfigSpace>, host: Arc<dyn Host>) -> Result<FunctionStore, PciError> {
    match MsiStore::new(config, host) {
        Ok(store) => Ok(FunctionStore { store: Arc::new(store), shape: Shape::AlignedGroup }),
        Err(PciError::NoCapability { .. }) => Err(PciError::NoMessages),
        Err(error) => Err(error),
    }
}

impl fmt::Debug for FunctionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionStore").field("shape", &self.shape).finish_non_exhaustive()
    }
}
