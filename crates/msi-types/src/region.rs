//! Ranges of physical addresses, which never wrap.

use core::fmt;

/// A range of CPU physical addresses. A region never wraps: `base + size` is at most 2^64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region {
    base: u64,
    size: u64,
}

impl Region {
    /// Creates a region of `size` bytes that starts at `base`. Returns `None` if the region would
    /// exceed the address space.
    pub const fn new(base: u64, size: u64) -> Option<Self> {
        match base.checked_add(size.saturating_sub(1)) {
            Some(_) => Some(Self { base, size }),
            None => None,
        }
    }

    /// Returns the address of the first byte.
    pub const fn base(self) -> u64 {
        self.base
    }

    /// Returns the length in bytes.
    pub const fn size(self) -> u64 {
        self.size
    }

    /// Returns the address of the last byte, or `None` if the region is empty.
    pub const fn last(self) -> Option<u64> {
        match self.size {
            0 => None,
            size => Some(self.base + (size - 1)),
        }
    }

    /// Returns `true` if the region contains `address`.
    pub const fn contains(self, address: u64) -> bool {
        address >= self.base && address - self.base < self.size
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last() {
            Some(last) => write!(f, "{:#x}-{last:#x}", self.base),
            None => write!(f, "{:#x} (empty)", self.base),
        }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({self})")
    }
}
