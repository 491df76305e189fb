//! A ring in guest memory, on top of rust-vmm's `vm-memory`.

use super::{Control, PAGE, RingError, RingMemory, check_length};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use doorbell_fallible::try_arc;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// Ring in guest memory. The control page and the data pages need not be contiguous: a guest
/// announces a ring as a list of pages (VMBus: GPADL). Clones share the list.
#[derive(Clone, Debug)]
pub struct GuestRing<M> {
    memory: M,
    /// Addresses of the control page and the data pages, in order.
    pages: Arc<Vec<GuestAddress>>,
    length: u32,
}

impl<M: GuestMemory> GuestRing<M> {
    /// Creates a ring in contiguous pages that start at `base`, with `length` bytes of data.
    ///
    /// # Errors
    /// Returns an error under the same conditions as [`from_pages`](Self::from_pages).
    pub fn new(memory: M, base: GuestAddress, length: u32) -> Result<Self, RingError> {
        let pages = check_length(length)? / PAGE;
        let base = base.0;
        Self::collect(memory, pages + 1, |page| {
            base.checked_add(u64::from(page) * u64::from(PAGE)).map(GuestAddress)
        })
    }

    /// Creates a ring in these pages: the control page, then each page of data.
    ///
    /// # Errors
    /// Returns [`RingError::BadLength`] for an invalid number of pages, [`RingError::BadIndex`]
    /// with the offset of a page that is unaligned or not in guest memory, or
    /// [`RingError::NoMemory`] if the heap is exhausted.
    pub fn from_pages(memory: M, pages: &[GuestAddress]) -> Result<Self, RingError> {
        let count = u32::try_from(pages.len()).map_err(|_| RingError::BadLength(u32::MAX))?;
        Self::collect(memory, count, |page| pages.get(page as usize).copied())
    }

    fn collect(
        memory: M,
        count: u32,
        address: impl Fn(u32) -> Option<GuestAddress>,
    ) -> Result<Self, RingError> {
        let length = check_length(count.saturating_sub(1).saturating_mul(PAGE))?;
        let mut pages = Vec::new();
        pages.try_reserve_exact(count as usize).map_err(|_| RingError::NoMemory)?;
        for page in 0..count {
            let bad = RingError::BadIndex(page * PAGE);
            let address = address(page).ok_or(bad)?;
            let is_aligned = address.0.is_multiple_of(PAGE.into());
            if !is_aligned || memory.load::<u64>(address, Ordering::SeqCst).is_err() {
                return Err(bad);
            }
            pages.push(address);
        }
        let pages = try_arc(pages).map_err(|_| RingError::NoMemory)?;
        Ok(Self { memory, pages, length })
    }

    fn load<T: vm_memory::AtomicAccess>(&self, offset: u32) -> Option<T> {
        self.memory.load(self.address(offset)?, Ordering::SeqCst).ok()
    }

    fn store<T: vm_memory::AtomicAccess>(&self, offset: u32, value: T) {
        if let Some(address) = self.address(offset) {
            // A store is lost if the memory was removed from the guest. Such memory reads as zeros,
            // which never form a valid packet.
            let _ = self.memory.store(value, address, Ordering::SeqCst);
        }
    }

    fn address(&self, offset: u32) -> Option<GuestAddress> {
        let page = self.pages.get((offset / PAGE) as usize)?;
        page.0.checked_add((offset % PAGE).into()).map(GuestAddress)
    }
}

impl<M: GuestMemory + Send> RingMemory for GuestRing<M> {
    fn length(&self) -> u32 {
        self.length
    }

    fn control(&self, word: Control) -> u32 {
        self.load(word.offset()).unwrap_or(0)
    }

    fn set_control(&self, word: Control, value: u32) {
        self.store(word.offset(), value);
    }

    fn data(&self, offset: u32) -> [u8; 8] {
        self.load::<u64>(PAGE + offset).unwrap_or(0).to_ne_bytes()
    }

    fn set_data(&self, offset: u32, bytes: [u8; 8]) {
        self.store(PAGE + offset, u64::from_ne_bytes(bytes));
    }
}
