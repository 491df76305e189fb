//! Per-device limits on vectors.

use doorbell_fallible::SortedMap;
use msi_types::{Attachment, MsiError, RequesterId};

/// ID of an attachment, which is never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AttachmentId(u32);

impl AttachmentId {
    pub(crate) fn of(attachment: &Attachment) -> Self {
        Self(attachment.cookie())
    }
}

#[derive(Debug)]
struct VectorQuota {
    limit: u32,
    used: u32,
}

/// Each attached device's limit and number of vectors in use.
#[derive(Debug, Default)]
pub(super) struct QuotaTable {
    next: u32,
    quotas: SortedMap<u32, VectorQuota>,
}

impl QuotaTable {
    pub(super) fn attach(
        &mut self,
        device: RequesterId,
        limit: u32,
    ) -> Result<Attachment, MsiError> {
        let cookie = self.next;
        let next =
            cookie.checked_add(1).ok_or(MsiError::NoMemory("another attachment's number"))?;
        self.quotas.reserve().map_err(|_| MsiError::NoMemory("the list of attachments"))?;
        self.next = next;
        self.quotas.insert(cookie, VectorQuota { limit, used: 0 });
        Ok(Attachment::new(device, cookie))
    }

    pub(super) fn detach(&mut self, attachment: &Attachment) {
        self.quotas.remove(attachment.cookie());
    }

    /// Counts vectors against the device's limit.
    pub(super) fn charge(
        &mut self,
        attachment: &Attachment,
        wanted: u16,
    ) -> Result<AttachmentId, MsiError> {
        let unknown = MsiError::DeviceFull { wanted, limit: 0 };
        let quota = self.quotas.get_mut(attachment.cookie()).ok_or(unknown)?;
        let used = quota.used.checked_add(wanted.into()).filter(|used| *used <= quota.limit);
        quota.used = used.ok_or(MsiError::DeviceFull { wanted, limit: quota.limit })?;
        Ok(AttachmentId::of(attachment))
    }

    pub(super) fn refund(&mut self, attachment: AttachmentId, count: u16) {
        if let Some(quota) = self.quotas.get_mut(attachment.0) {
            quota.used = quota.used.saturating_sub(count.into());
        }
    }
}
