//! What the domains of one device have in common at their controller.

use crate::error::MsiDeviceError;
use crate::host::Host;
use crate::lock::TaskLock;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use msi_types::{Attachment, MsiParent, RequesterId, VectorBlock};

/// A device's attachment. It goes back to the controller with the last of its users.
pub(crate) struct Share {
    pub(crate) parent: Arc<dyn MsiParent>,
    pub(crate) requester: RequesterId,
    users: TaskLock<Users>,
}

struct Users {
    /// `None` once the last user has left.
    attachment: Option<Attachment>,
    count: u32,
}

impl Share {
    /// Attaches the device; the caller is the first user. Task.
    pub(super) fn attach(
        parent: Arc<dyn MsiParent>,
        requester: RequesterId,
        vectors: u32,
    ) -> Result<Arc<Self>, MsiDeviceError> {
        let attachment = Some(parent.attach(requester, vectors)?);
        Ok(Arc::new(Self { parent, requester, users: TaskLock::new(Users { attachment, count: 1 }) }))
    }

    /// One more user. Task.
    pub(super) fn join(&self, host: &dyn Host) -> Result<(), MsiDeviceError> {
        let mut users = self.users.lock(host);
        if users.attachment.is_none() {
            return Err(MsiDeviceError::Gone);
        }
        users.count += 1;
        Ok(())
    }

    /// One user less, with the blocks it had: with the last one's the device is detached, in one step. Task.
    pub(crate) fn leave(&self, host: &dyn Host, blocks: Vec<VectorBlock>) {
        let mut users = self.users.lock(host);
        users.count = users.count.saturating_sub(1);
        match users.attachment.take() {
            Some(attachment) if users.count == 0 => {
                self.parent.release(attachment, &mut blocks.into_iter());
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

    /// Gives one block back. Task.
    pub(super) fn free(&self, host: &dyn Host, block: VectorBlock) {
        if let Some(attachment) = &self.users.lock(host).attachment {
            self.parent.free(attachment, block);
        }
    }

    /// Works with the attachment. Task.
    pub(super) fn with<T>(
        &self,
        host: &dyn Host,
        act: impl FnOnce(&Attachment) -> Result<T, MsiDeviceError>,
    ) -> Result<T, MsiDeviceError> {
        act(self.users.lock(host).attachment.as_ref().ok_or(MsiDeviceError::Gone)?)
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("requester", &self.requester).finish_non_exhaustive()
    }
}
