//! Record of what KVM reads when it restores tables.

use crate::abi::Errno;
use alloc::vec::Vec;
use doorbell_fallible::try_push;
use gic_arch::IntId;

/// Size of the pages in which memory is copied.
pub(super) const PAGE_BYTES: usize = 0x1000;
pub(super) const PAGE: u64 = PAGE_BYTES as u64;
/// Maximum number of pages that a rehearsal reads, including repetitions (1 GiB). KVM has no limit.
const MOST_PAGES: usize = 1 << 18;
/// Number of INTIDs of 16 bits.
const INTIDS: usize = 1 << 16;

/// Progress of a restore that is as strict as KVM.
#[derive(Debug, Default)]
pub(super) struct Rehearsal {
    /// Numbers of the pages that were read, with repetitions.
    pages: Vec<u64>,
    /// `true` for the LPIs that are mapped, by INTID. Empty before the first one.
    mapped: Vec<bool>,
}

impl Rehearsal {
    /// Notes that a part of one page was read.
    ///
    /// Fails with `ENOMEM` if the heap is exhausted or too many pages were read.
    pub(super) fn note(&mut self, address: u64) -> Result<(), Errno> {
        let page = address / PAGE;
        if self.pages.last() == Some(&page) {
            return Ok(());
        }
        if self.pages.len() == MOST_PAGES {
            return Err(Errno::NoMemory);
        }
        Ok(try_push(&mut self.pages, page)?)
    }

    /// Notes that an LPI is mapped. Returns `true` if it was not mapped before.
    pub(super) fn map(&mut self, lpi: IntId) -> Result<bool, Errno> {
        if self.mapped.is_empty() {
            self.mapped.try_reserve_exact(INTIDS)?;
            self.mapped.resize(INTIDS, false);
        }
        let mapped = usize::try_from(lpi.get()).ok().and_then(|lpi| self.mapped.get_mut(lpi));
        Ok(mapped.is_none_or(|mapped| !core::mem::replace(mapped, true)))
    }

    /// Returns the numbers of the pages that were read.
    pub(super) fn into_pages(self) -> Vec<u64> {
        self.pages
    }
}
