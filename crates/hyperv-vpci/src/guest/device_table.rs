//! Attachments. Each attachment of a function has its own entry.

use super::VpciError;
use super::function_table::FunctionId;
use super::vectors::Vectors;
use alloc::vec::Vec;
use msi_types::{Attachment, HwIrqBlock, MsiError};

/// One attachment of a function.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) function: FunctionId,
    /// The function's attachment at the root.
    pub(super) root: Attachment,
    limit: u32,
    /// Number of vectors that are allocated, or freed but still waiting for the host to confirm the
    /// deletion.
    used: u32,
    is_detached: bool,
}

/// All attachments, by cookie.
#[derive(Default, Debug)]
pub(super) struct DeviceTable(Vec<Option<Device>>);

impl DeviceTable {
    /// Reserves an entry for another attachment and returns its cookie.
    pub(super) fn reserve(&mut self) -> Result<u32, VpciError> {
        let free = self.0.iter().position(Option::is_none);
        let index = if let Some(index) = free {
            index
        } else {
            self.0.try_reserve(1).map_err(|_| VpciError::NoMemory)?;
            self.0.push(None);
            self.0.len() - 1
        };
        u32::try_from(index).map_err(|_| VpciError::NoMemory)
    }

    /// Fills a reserved entry.
    pub(super) fn insert(
        &mut self,
        cookie: u32,
        function: FunctionId,
        root: Attachment,
        limit: u32,
    ) {
        if let Some(entry) = self.0.get_mut(cookie as usize) {
            let is_detached = false;
            *entry = Some(Device { function, root, limit, used: 0, is_detached });
        }
    }

    pub(super) fn get(&self, cookie: u32) -> Option<&Device> {
        self.0.get(cookie as usize)?.as_ref()
    }

    /// Counts vectors as used, up to the attachment's limit.
    pub(super) fn take(&mut self, cookie: u32, count: u16) -> Result<&Device, MsiError> {
        let gone = MsiError::DeviceFull { wanted: count, limit: 0 };
        let device = self.0.get_mut(cookie as usize).and_then(Option::as_mut).ok_or(gone)?;
        let used = device.used.saturating_add(count.into());
        if used > device.limit {
            return Err(MsiError::DeviceFull { wanted: count, limit: device.limit });
        }
        device.used = used;
        Ok(device)
    }

    /// Reverses [`take`](Self::take), because the vectors were not allocated after all.
    pub(super) fn give_back(&mut self, vectors: &Vectors, cookie: u32, count: u16) {
        if let Some(Some(device)) = self.0.get_mut(cookie as usize) {
            device.used = device.used.saturating_sub(count.into());
        }
        self.finish(vectors, cookie);
    }

    /// Frees vectors at the root.
    pub(super) fn release(&mut self, vectors: &Vectors, cookie: u32, block: HwIrqBlock) {
        let count = block.count().get();
        if let Some(device) = self.get(cookie) {
            vectors.free(&device.root, block);
        }
        self.give_back(vectors, cookie, count);
    }

    /// Detaches a function. The attachment's entry is removed once all of its vectors have been
    /// released.
    pub(super) fn detach(&mut self, vectors: &Vectors, cookie: u32) {
        if let Some(Some(device)) = self.0.get_mut(cookie as usize) {
            device.is_detached = true;
        }
        self.finish(vectors, cookie);
    }

    fn finish(&mut self, vectors: &Vectors, cookie: u32) {
        let Some(entry) = self.0.get_mut(cookie as usize) else { return };
        let over = entry.as_ref().is_some_and(|device| device.is_detached && device.used == 0);
        if let Some(device) = entry.take_if(|_| over) {
            vectors.detach(device.root);
        }
    }
}
