//! Guest memory that contains only a snapshot's copies of the tables.

use super::{MOST_PAGES, MemoryRange, PAGE};
use crate::abi::Errno;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
use vgic::{GuestMemory, MemoryFault};

/// Ranges of memory, by their addresses. A restore changes pending bits, so the bytes are copied.
pub(super) struct TableCopies(pub(super) Vec<(u64, Vec<AtomicU8>)>);

impl TableCopies {
    /// Copies the ranges. Fails with `EINVAL` if they exceed 64 MiB, or if contents lie outside of
    /// their range.
    pub(super) fn of(ranges: &[MemoryRange]) -> Result<Self, Errno> {
        let mut rest = MOST_PAGES as u64 * PAGE;
        let mut copies = Vec::new();
        copies.try_reserve(ranges.len())?;
        for range in ranges {
            rest = rest.checked_sub(range.bytes).ok_or(Errno::Invalid)?;
            let bytes = usize::try_from(range.bytes).map_err(|_| Errno::Invalid)?;
            let mut copy = Vec::new();
            copy.try_reserve_exact(bytes)?;
            copy.resize_with(bytes, AtomicU8::default);
            for data in &range.data {
                let start = usize::try_from(data.at).map_err(|_| Errno::Invalid)?;
                let place = copy.get_mut(start..).and_then(|rest| rest.get_mut(..data.hex.len()));
                let place = place.ok_or(Errno::Invalid)?;
                place.iter_mut().zip(&data.hex).for_each(|(place, byte)| *place.get_mut() = *byte);
            }
            copies.push((range.address, copy));
        }
        Ok(Self(copies))
    }

    fn find(&self, address: u64, count: usize) -> Result<&[AtomicU8], MemoryFault> {
        let mut found = self.0.iter().filter_map(|(base, bytes)| {
            let start = usize::try_from(address.checked_sub(*base)?).ok()?;
            bytes.get(start..)?.get(..count)
        });
        found.next().ok_or(MemoryFault { address })
    }
}

impl GuestMemory for TableCopies {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let from = self.find(address, bytes.len())?;
        bytes.iter_mut().zip(from).for_each(|(byte, from)| *byte = from.load(Relaxed));
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        let to = self.find(address, bytes.len())?;
        bytes.iter().zip(to).for_each(|(byte, to)| to.store(*byte, Relaxed));
        Ok(())
    }
}
