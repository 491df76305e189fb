//! A ring in guest memory, by rust-vmm's crate.

use super::{Control, PAGE, RingError, RingMemory, check_length};
use core::sync::atomic::Ordering;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// A ring in guest memory: a control page and the data after it.
#[derive(Clone, Debug)]
pub struct GuestRing<M> {
    memory: M,
    base: GuestAddress,
    length: u32,
}

impl<M: GuestMemory> GuestRing<M> {
    /// The ring at `base`, aligned to a page, with `length` bytes of data.
    ///
    /// # Errors
    /// [`RingError::BadLength`]; [`RingError::BadIndex`] if guest memory does not hold all of it.
    pub fn new(memory: M, base: GuestAddress, length: u32) -> Result<Self, RingError> {
        let ring = Self { memory, base, length: check_length(length)? };
        let pages = length / PAGE + 1;
        match (0..pages).find(|page| ring.load::<u64>(page * PAGE).is_none()) {
            Some(page) => Err(RingError::BadIndex(page * PAGE)),
            None if !base.0.is_multiple_of(PAGE.into()) => Err(RingError::BadIndex(0)),
            None => Ok(ring),
        }
    }

    fn load<T: vm_memory::AtomicAccess>(&self, offset: u32) -> Option<T> {
        self.memory.load(self.address(offset)?, Ordering::SeqCst).ok()
    }

    fn store<T: vm_memory::AtomicAccess>(&self, offset: u32, value: T) {
        if let Some(address) = self.address(offset) {
            // Memory that a guest lost meanwhile reads as zeros, which is no packet.
            let _ = self.memory.store(value, address, Ordering::SeqCst);
        }
    }

    fn address(&self, offset: u32) -> Option<GuestAddress> {
        self.base.0.checked_add(offset.into()).map(GuestAddress)
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
