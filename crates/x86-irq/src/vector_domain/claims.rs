//! Limits of each device's vectors.

use doorbell_fallible::SortedMap;
use msi_types::{Attachment, MsiError};

/// An attachment, for as long as it lasts; never used again for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClaimId(u32);

impl ClaimId {
    pub(crate) fn of(attachment: &Attachment) -> Self {
        Self(attachment.cookie())
    }
}

#[derive(Debug)]
struct Claim {
    limit: u32,
    used: u32,
}

/// The attached devices.
#[derive(Debug, Default)]
pub(super) struct Claims {
    next: u32,
    claims: SortedMap<u32, Claim>,
}

impl Claims {
    pub(super) fn attach(&mut self, limit: u32) -> Result<Attachment, MsiError> {
        let cookie = self.next;
        let next =
            cookie.checked_add(1).ok_or(MsiError::NoMemory("another attachment's number"))?;
        self.claims.reserve().map_err(|_| MsiError::NoMemory("the list of attachments"))?;
        self.next = next;
        self.claims.insert(cookie, Claim { limit, used: 0 });
        Ok(Attachment::new(cookie))
    }

    pub(super) fn detach(&mut self, attachment: &Attachment) {
        self.claims.remove(attachment.cookie());
    }

    /// Counts vectors against the device's limit.
    pub(super) fn charge(
        &mut self,
        attachment: &Attachment,
        wanted: u16,
    ) -> Result<ClaimId, MsiError> {
        let unknown = MsiError::DeviceFull { wanted, limit: 0 };
        let claim = self.claims.get_mut(attachment.cookie()).ok_or(unknown)?;
        let used = claim.used.checked_add(wanted.into()).filter(|used| *used <= claim.limit);
        claim.used = used.ok_or(MsiError::DeviceFull { wanted, limit: claim.limit })?;
        Ok(ClaimId::of(attachment))
    }

    pub(super) fn refund(&mut self, claim: ClaimId, count: u16) {
        if let Some(claim) = self.claims.get_mut(claim.0) {
            claim.used = claim.used.saturating_sub(count.into());
        }
    }
}
