//! An attachment that all of a device's domains share.

use crate::error::MsiDeviceError;
use crate::runtime::Host;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use doorbell_fallible::Shared;
use doorbell_fallible::lock::TaskLock;
use msi_types::{
    Attachment, DmaIsolated, HwIrqBlock, InterruptIsolated, Isolation, MsiParent, NotDmaIsolated,
    NotIsolated, RequesterId,
};

/// A device's attachment, with a user count. The last user detaches the device.
pub(crate) struct SharedAttachment {
    pub(crate) parent: Arc<dyn MsiParent>,
    pub(crate) requester: RequesterId,
    users: TaskLock<Users>,
}

struct Users {
    /// `None` before the device is attached, and again after the last user has detached it.
    attachment: Option<Attachment>,
    count: u32,
}

impl SharedAttachment {
    /// Creates the attachment for a device that is not attached yet. The caller becomes its first
    /// user.
    ///
    /// Context: task; may sleep.
    pub(super) fn try_new(
        parent: Arc<dyn MsiParent>,
        requester: RequesterId,
    ) -> Result<Shared<Self>, TryReserveError> {
        let users = TaskLock::new(Users { attachment: None, count: 1 });
        Shared::try_new(Self { parent, requester, users })
    }

    /// Attaches the device.
    ///
    /// Context: task; may sleep.
    pub(super) fn attach(&self, host: &dyn Host, vectors: u32) -> Result<(), MsiDeviceError> {
        let attachment = self.parent.attach(self.requester, vectors)?;
        self.users.lock(host).attachment = Some(attachment);
        Ok(())
    }

    /// Adds a user.
    ///
    /// Context: task; may sleep.
    pub(super) fn join(&self, host: &dyn Host) -> Result<(), MsiDeviceError> {
        let mut users = self.users.lock(host);
        if users.attachment.is_none() {
            return Err(MsiDeviceError::Gone);
        }
        users.count += 1;
        Ok(())
    }

    /// Removes a user and frees its blocks. The last user also detaches the device, in the same
    /// controller operation.
    ///
    /// Context: task; may sleep.
    pub(crate) fn leave(&self, host: &dyn Host, blocks: &mut dyn Iterator<Item = HwIrqBlock>) {
        let mut users = self.users.lock(host);
        users.count = users.count.saturating_sub(1);
        match users.attachment.take() {
            Some(attachment) if users.count == 0 => {
                self.parent.release(attachment, blocks);
            }
            Some(attachment) => {
                for block in blocks {
                    self.parent.free(&attachment, block);
                }
                users.attachment = Some(attachment);
            }
            None => {}
        }
    }

    /// Frees one block.
    ///
    /// Context: task; may sleep.
    pub(super) fn free(&self, host: &dyn Host, block: HwIrqBlock) {
        if let Some(attachment) = &self.users.lock(host).attachment {
            self.parent.free(attachment, block);
        }
    }

    /// Returns whether the device is prevented from triggering other devices' interrupts.
    ///
    /// Context: any.
    pub(super) fn isolation(&self) -> Isolation {
        self.parent.isolation(self.requester)
    }

    /// Returns a proof that the device cannot trigger other devices' interrupts.
    ///
    /// Context: any.
    pub(super) fn prove_isolated(&self) -> Result<InterruptIsolated<'_>, NotIsolated> {
        InterruptIsolated::prove(&*self.parent, self.requester)
    }

    /// Returns a proof that the device cannot access memory that does not belong to it.
    ///
    /// Context: any.
    pub(super) fn prove_dma_isolated(&self) -> Result<DmaIsolated<'_>, NotDmaIsolated> {
        DmaIsolated::prove(&*self.parent, self.requester)
    }

    /// Calls `act` with the attachment.
    ///
    /// Context: task; may sleep.
    pub(super) fn with<T>(
        &self,
        host: &dyn Host,
        act: impl FnOnce(&Attachment) -> Result<T, MsiDeviceError>,
    ) -> Result<T, MsiDeviceError> {
        act(self.users.lock(host).attachment.as_ref().ok_or(MsiDeviceError::Gone)?)
    }
}

msi_types::debug_by!(SharedAttachment as "SharedAttachment", |it| {requester: it.requester});
