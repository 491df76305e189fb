//! Devices with several message stores, whose domains share one attachment.

use super::endpoint::{Endpoint, check_store};
use super::msi_device::MsiDevice;
use super::shared_attachment::SharedAttachment;
use crate::error::MsiDeviceError;
use crate::interrupts::Interrupts;
use crate::request::owner::Owner;
use crate::request::root_controller::IrqCore;
use alloc::sync::Arc;
use doorbell_fallible::Shared;
use msi_types::{Isolation, MessageStore, MsiParent, RequesterId};

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
    /// The device itself, as a user of the attachment.
    _owner: Owner,
}

impl SharedDevice {
    /// Attaches a device to `parent`, the controller that serves it, including the layers in
    /// between, and reserves room for at most `vectors` vectors in all its domains together.
    ///
    /// Context: task; may sleep.
    pub fn attach(
        interrupts: &Interrupts,
        requester: RequesterId,
        parent: Arc<dyn MsiParent>,
        vectors: u32,
    ) -> Result<Self, MsiDeviceError> {
        let core = &interrupts.core;
        core.reclaim();
        let attachment = SharedAttachment::try_new(parent, requester)?;
        let left = attachment.clone();
        let owner = Owner::try_new(core, move |registry| {
            left.leave(registry.host(), &mut core::iter::empty());
        })?;
        attachment.attach(core.host(), vectors)?;
        Ok(Self { core: core.clone(), attachment, _owner: owner })
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

msi_types::debug_by!(SharedDevice as "SharedDevice", |it| {requester: it.attachment.requester});
