//! An ITS's device table, its attached devices, and the event quota for each attachment. This
//! module does not post commands.

use super::devices::{Device, EventQuota};
use super::error::{ItsError, fault};
use super::hardware::ControlFrame;
use super::tables::ItsTable;
use crate::platform::GicPlatform;
use core::num::NonZeroU16;
use doorbell_fallible::SortedMap;
use msi_types::{Attachment, DeviceId, RequesterId, Shape};

/// The attached devices, and the table where the ITS looks them up.
#[derive(Debug)]
pub(super) struct DeviceTable {
    pub(super) table: ItsTable,
    id_bits: u8,
    /// The attached devices. The room for a new one must have been [reserved](Self::reserve).
    pub(super) attached: SortedMap<DeviceId, Device>,
    /// Quotas, indexed by [`Attachment`] cookie.
    quotas: SortedMap<u32, EventQuota>,
    next_cookie: u32,
}

impl DeviceTable {
    pub(super) fn new(table: ItsTable) -> Self {
        let id_bits = u8::try_from(table.ids().ilog2()).unwrap_or(u8::MAX);
        let (attached, quotas) = (SortedMap::new(), SortedMap::new());
        Self { table, id_bits, attached, quotas, next_cookie: 0 }
    }

    /// Checks that the device table has an entry for the device.
    pub(super) fn check_id(&self, id: DeviceId) -> Result<(), ItsError> {
        if u64::from(id.get()) < self.table.ids() {
            Ok(())
        } else {
            Err(ItsError::DeviceIdOutOfRange { id, bits: self.id_bits })
        }
    }

    /// Allocates memory for a device, a quota, and the device's entry in the table.
    pub(super) fn reserve<P: GicPlatform>(
        &mut self,
        frame: &ControlFrame<P>,
        id: DeviceId,
    ) -> Result<(), ItsError> {
        let no_memory = |_| ItsError::NoMemory("a device's attachment");
        self.quotas.reserve().map_err(no_memory)?;
        self.attached.reserve().map_err(no_memory)?;
        self.table
            .ensure(frame, id.get())
            .map_err(|error| ItsError::no_table("a second-level ITS table", error))
    }

    /// Removes a device if it has neither quotas nor events.
    pub(super) fn remove_unused(&mut self, id: DeviceId) -> Option<Device> {
        let device = self.attached.get(id)?;
        let unused = device.users == 0 && device.is_idle();
        if unused { self.attached.remove(id) } else { None }
    }

    /// Adds a quota of up to `limit` events. The memory for the record must have been
    /// [reserved](Self::reserve). The attachment's requester is the DeviceID.
    pub(super) fn add_quota(&mut self, device: DeviceId, limit: u32) -> Attachment {
        // Attachments are few, so a free number is found quickly.
        while self.quotas.contains(self.next_cookie) {
            self.next_cookie = self.next_cookie.wrapping_add(1);
        }
        self.quotas.insert(self.next_cookie, EventQuota { device, limit, used: 0 });
        Attachment::new(RequesterId::new(device.get()), self.next_cookie)
    }

    pub(super) fn quota(&self, attachment: &Attachment) -> Option<&EventQuota> {
        self.quotas.get(attachment.cookie())
    }

    pub(super) fn remove_quota(&mut self, attachment: &Attachment) -> Option<EventQuota> {
        self.quotas.remove(attachment.cookie())
    }

    /// Allocates events from a quota. `base` is the address of the ITS, which errors report.
    pub(super) fn allocate_events(
        &mut self,
        base: u64,
        attachment: &Attachment,
        count: NonZeroU16,
        shape: Shape,
    ) -> Result<(DeviceId, u16), ItsError> {
        let unknown = fault(base, "MAPTI", "the attachment does not belong to this ITS");
        let quota = self.quotas.get_mut(attachment.cookie()).ok_or(unknown)?;
        let none = ItsError::NoEvents { wanted: count.get(), limit: quota.limit };
        let used = quota.used + u32::from(count.get());
        if used > quota.limit {
            return Err(none);
        }
        let known = self.attached.get_mut(quota.device).ok_or(unknown)?;
        let first = known.allocate_events(count, shape).ok_or(none)?;
        quota.used = used;
        Ok((quota.device, first))
    }

    /// Returns events to a quota. The events stay allocated in the device's table.
    pub(super) fn return_events(&mut self, attachment: &Attachment, count: NonZeroU16) {
        if let Some(quota) = self.quotas.get_mut(attachment.cookie()) {
            quota.used = quota.used.saturating_sub(count.get().into());
        }
    }

    /// Frees a device's allocated events.
    pub(super) fn free_events(&mut self, id: DeviceId, first: u16, count: NonZeroU16) {
        if let Some(known) = self.attached.get_mut(id) {
            known.free_events(first, count);
        }
    }
}
