//! Guest memory in a snapshot.

use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vgic::{GuestMemory, MemoryFault};
use vgic_kvm::snapshot::MemoryRange;

const PAGE_BYTES: usize = 0x1000;
const PAGE: u64 = PAGE_BYTES as u64;
/// Maximum number of stored pages, 128 MiB in total.
const MOST_PAGES: usize = 1 << 15;
/// End of the guest physical address space.
const END: u64 = 1 << 52;

type Page = Box<[u8; PAGE_BYTES]>;

/// Copy of the guest memory that a snapshot contains. Accesses to other addresses fail.
#[derive(Debug)]
pub(super) struct Memory {
    /// Address ranges that exist, sorted and disjoint.
    ranges: Vec<Range<u64>>,
    pages: Mutex<BTreeMap<u64, Page>>,
}

impl Memory {
    /// Creates memory that exists at every address and contains zeros.
    pub(super) fn everywhere() -> Self {
        Self { ranges: std::iter::once(0..END).collect(), pages: Mutex::default() }
    }

    /// Copies the memory of a snapshot.
    pub(super) fn of(ranges: &[MemoryRange]) -> Result<Self> {
        let mut spans = Vec::new();
        for range in ranges {
            let end = range.address.checked_add(range.bytes).filter(|end| *end <= END);
            let Some(end) = end else {
                anyhow::bail!("memory at {:#x} exceeds 52 address bits", range.address);
            };
            spans.push(range.address..end);
        }
        spans.sort_by_key(|span| span.start);
        for pair in spans.windows(2) {
            ensure!(pair[0].end <= pair[1].start, "memory ranges overlap at {:#x}", pair[1].start);
        }
        let merged = spans.into_iter().fold(Vec::new(), |mut merged: Vec<Range<u64>>, span| {
            match merged.last_mut() {
                Some(last) if last.end == span.start => last.end = span.end,
                _ => merged.push(span),
            }
            merged
        });
        let memory = Self { ranges: merged, pages: Mutex::default() };
        for range in ranges {
            for data in &range.data {
                let end = data.at.checked_add(data.hex.len() as u64);
                ensure!(
                    end.is_some_and(|end| end <= range.bytes),
                    "data at {:#x} exceeds its range at {:#x}",
                    data.at,
                    range.address
                );
                memory.store(range.address + data.at, &data.hex);
                ensure!(
                    memory.pages().len() <= MOST_PAGES,
                    "the snapshot contains more than {} MiB of memory",
                    (MOST_PAGES * PAGE_BYTES) >> 20
                );
            }
        }
        Ok(memory)
    }

    /// Returns the first part of a range that the snapshot lacks.
    pub(super) fn missing(&self, wanted: Range<u64>) -> Option<Range<u64>> {
        if wanted.is_empty() {
            return None;
        }
        let at = self.ranges.partition_point(|range| range.end <= wanted.start);
        let rest = self.ranges.get(at..).unwrap_or_default();
        let holder = rest.first().filter(|range| range.contains(&wanted.start));
        let start = holder.map_or(wanted.start, |range| range.end);
        if start >= wanted.end {
            return None;
        }
        let next = rest.iter().map(|range| range.start).find(|next| *next > start);
        Some(start..next.map_or(wanted.end, |next| next.min(wanted.end)))
    }

    fn check(&self, address: u64, length: usize) -> Result<(), MemoryFault> {
        let end = address.checked_add(length as u64).ok_or(MemoryFault { address })?;
        let at = self.ranges.partition_point(|range| range.end < end);
        let inside = self.ranges.get(at).is_some_and(|range| range.start <= address);
        if inside { Ok(()) } else { Err(MemoryFault { address }) }
    }

    /// Stores bytes. A page that is not stored reads as zeros.
    fn store(&self, address: u64, bytes: &[u8]) {
        let mut pages = self.pages();
        for (at, byte) in (address..).zip(bytes) {
            if let Some(page) = pages.get_mut(&(at / PAGE)) {
                page[offset(at)] = *byte;
            } else if *byte != 0 {
                let page = pages.entry(at / PAGE).or_insert(Box::new([0; PAGE_BYTES]));
                page[offset(at)] = *byte;
            }
        }
    }

    fn pages(&self) -> MutexGuard<'_, BTreeMap<u64, Page>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the offset of an address in its page.
const fn offset(address: u64) -> usize {
    (address % PAGE) as usize
}

impl GuestMemory for Memory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.check(address, bytes.len())?;
        let pages = self.pages();
        for (at, byte) in (address..).zip(bytes) {
            *byte = pages.get(&(at / PAGE)).map_or(0, |page| page[offset(at)]);
        }
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.check(address, bytes.len())?;
        self.store(address, bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vgic_kvm::snapshot::MemoryData;

    fn range(address: u64, bytes: u64, data: Vec<MemoryData>) -> MemoryRange {
        let mut range = MemoryRange::new(address, bytes);
        range.data = data;
        range
    }

    #[test]
    fn reads_outside_the_memory_of_the_snapshot_fault() {
        let data = MemoryData::new(0xffe, vec![1, 2, 3]);
        let memory =
            Memory::of(&[range(0x2000, 0x1000, vec![]), range(0x0, 0x2000, vec![data])]).unwrap();
        let mut bytes = [0; 5];
        memory.read(0xffd, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 1, 2, 3, 0]);
        assert_eq!(memory.read(0x2fff, &mut bytes), Err(MemoryFault { address: 0x2fff }));
        assert_eq!(memory.missing(0x1000..0x3000), None);
        assert_eq!(memory.missing(0x1000..0x5000), Some(0x3000..0x5000));
        assert_eq!(memory.missing(u64::MAX - 1..u64::MAX), Some(u64::MAX - 1..u64::MAX));
    }

    #[test]
    fn malformed_memory_is_refused() {
        let error = |ranges: &[MemoryRange]| Memory::of(ranges).unwrap_err().to_string();
        let twice = [range(0, 0x2000, vec![]), range(0x1000, 0x1000, vec![])];
        assert_eq!(error(&twice), "memory ranges overlap at 0x1000");
        let data = MemoryData::new(u64::MAX, vec![1]);
        assert!(error(&[range(0, 0x1000, vec![data])]).starts_with("data at 0xffffffffffffffff"));
        assert!(error(&[range(u64::MAX, 2, vec![])]).ends_with("52 address bits"));
    }
}
