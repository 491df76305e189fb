//! Memory outside of a test's locations. It is created on demand, so that a test need not know the
//! layout of any struct: a pointer or length that was never written reads as the address of a new
//! object, which is also larger than any index, and a smaller field reads as 0.

use std::collections::BTreeMap;

/// Distance between objects in bytes.
pub(crate) const SPACING: u64 = 1 << 24;

/// Bytes by address.
pub(crate) type Bytes = BTreeMap<u64, u8>;

/// Objects, and the memory of a test before its threads start.
#[derive(Debug, Default)]
pub(crate) struct Heap {
    named: BTreeMap<String, u64>,
    pointers: BTreeMap<u64, u64>,
    objects: u64,
}

impl Heap {
    /// Returns the address of the object or static with this name.
    pub(crate) fn object(&mut self, name: &str) -> u64 {
        if let Some(address) = self.named.get(name) {
            return *address;
        }
        let address = self.allocate();
        self.named.insert(name.to_owned(), address);
        address
    }

    fn allocate(&mut self) -> u64 {
        self.objects += 1;
        self.objects * SPACING
    }

    /// Loads a little-endian value.
    pub(crate) fn load(&mut self, bytes: &Bytes, address: u64, size: u64) -> u64 {
        let written = (address..address + size).any(|at| bytes.contains_key(&at));
        if size == 8 && !written {
            if let Some(pointer) = self.pointers.get(&address) {
                return *pointer;
            }
            let pointer = self.allocate();
            self.pointers.insert(address, pointer);
            return pointer;
        }
        let byte = |at| u64::from(bytes.get(&at).copied().unwrap_or(0));
        (0..size).map(|at| byte(address + at) << (8 * at)).sum()
    }
}

/// Stores a little-endian value.
pub(crate) fn store(bytes: &mut Bytes, address: u64, size: u64, value: u64) {
    for (at, byte) in (address..address + size).zip(value.to_le_bytes()) {
        bytes.insert(at, byte);
    }
}
