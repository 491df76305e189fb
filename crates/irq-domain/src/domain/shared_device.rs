//! Devices with several message stores.

use super::endpoint::Endpoint;
use super::msi_device::MsiDevice;
use super::negotiation::check_store;
use super::shared_attachment::SharedAttachment;

use crate::error::MsiDeviceError;
use crate::interrupts::Interrupts;
use crate::irq::registry::IrqRegistry;
use crate::request::deferred_free::{TakenOnDrop, Teardown};
use crate::request::parts::IrqCore;
use alloc::sync::Arc;
use doorbell_fallible::Shared;
use msi_types::{Isolation, MessageStore, MsiParent, RequesterId};

/// Configuration for a device with several domains.
#[non_exhaustive]
pub struct SharedDeviceConfig {
    /// The device's requester ID.
    pub(crate) requester: RequesterId,
    /// The controller that serves the device, including the layers in between.
    pub(crate) parent: Arc<dyn MsiParent>,
    /// Maximum number of vectors in all domains together.
    pub(crate) vectors: u32,
}

impl SharedDeviceConfig {
    /// Creates the configuration for a device with this requester ID and at most `vectors` vectors,
    /// served by `parent`.
    pub fn new(requester: RequesterId, parent: Arc<dyn MsiParent>, vectors: u32) -> Self {
        Self { requester, parent, vectors }
    }
}

msi_types::debug_by!(
    SharedDeviceConfig as "SharedDeviceConfig",
    |it| {requester: it.requester, vectors: it.vectors}
);

/// A device with several message stores, e.g. an MSI-X table and IMS. The device has a single
/// attachment at the controller (for an ITS, this means one DeviceID and one EventID space).
/// Domains can be created and dropped at any time.
///
/// The device is detached once the `SharedDevice` and all its domains have been dropped. If the
/// caller of the last drop [may not wait](crate::TaskContext::may_wait), a later task operation
/// detaches the device.
#[must_use = "dropping it, and all its domains, detaches the device"]
pub struct SharedDevice {
    core: Shared<IrqCore>,
    attachment: Shared<SharedAttachment>,
    owner: TakenOnDrop<dyn Teardown>,
}

/// The [`SharedDevice`] itself, as a user of the attachment.
struct AttachmentOwner(Shared<SharedAttachment>);

impl Teardown for AttachmentOwner {
    fn tear_down(&self, registry: &IrqRegistry) {
        self.0.leave(registry.host(), &mut core::iter::empty());
    }
}

impl SharedDevice {
    /// Attaches the device to its controller, and reserves room for the vectors of all its domains.
    ///
    /// Context: task; may sleep.
    pub fn attach(
        interrupts: &Interrupts,
        config: SharedDeviceConfig,
    ) -> Result<Self, MsiDeviceError> {
        let core = &interrupts.core;
        core.reclaim();
        let attachment = SharedAttachment::try_new(config.parent, config.requester)?;
        let owner =
            Shared::<dyn Teardown>::try_unsized(AttachmentOwner(attachment.clone()), |block| {
                block
            })?;
        core.deferred.reserve(core.host())?;
        let device = Self { core: core.clone(), attachment, owner: TakenOnDrop::new(owner) };
        device.attachment.attach(core.host(), config.vectors)?;
        Ok(device)
    }

    /// Creates a domain for one of the device's stores.
    ///
    /// Context: task; may sleep.
    pub fn domain(
        &self,
        name: &str,
        store: Arc<dyn MessageStore>,
    ) -> Result<MsiDevice, MsiDeviceError> {
        self.core.reclaim();
        let endpoint = Endpoint::new(store, None);
        check_store(&*self.attachment.parent, self.attachment.requester, &endpoint)?;
        self.attachment.join(self.core.host())?;
        let domain = MsiDevice::on_attachment(&self.core, name, self.attachment.clone(), endpoint);
        Ok(domain
            .inspect_err(|_| self.attachment.leave(self.core.host(), &mut core::iter::empty()))?)
    }

    /// Returns whether the device is prevented from triggering other devices' interrupts.
    ///
    /// Context: any.
    pub fn isolation(&self) -> Isolation {
        self.attachment.isolation()
    }
}

impl Drop for SharedDevice {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            self.core.deferred.release_owner(&self.core.registry, owner);
        }
    }
}

msi_types::debug_by!(SharedDevice as "SharedDevice", |it| {requester: it.attachment.requester});
