//! Cacheability and shareability of the GIC's table accesses (IHI 0069 §12.11, `GICR_PROPBASER` and
//! similar registers).

/// Shareability, bits 11:10 of every table register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shareability {
    /// Non-shareable.
    Non = 0,
    /// Inner Shareable.
    Inner = 1,
    /// Outer Shareable.
    Outer = 2,
    /// Reserved; treated as non-shareable.
    Reserved = 3,
}

impl Shareability {
    /// Decodes the two low bits of `bits`.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Non,
            1 => Self::Inner,
            2 => Self::Outer,
            _ => Self::Reserved,
        }
    }

    /// Returns the two-bit encoding.
    pub const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// Inner cacheability.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cacheability {
    /// Device-nGnRnE.
    Device = 0,
    /// Normal, Non-cacheable.
    NonCacheable = 1,
    /// Normal, Read-Allocate, Write-Through.
    ReadAllocateWriteThrough = 2,
    /// Normal, Read-Allocate, Write-Back.
    ReadAllocateWriteBack = 3,
    /// Normal, Write-Allocate, Write-Through.
    WriteAllocateWriteThrough = 4,
    /// Normal, Write-Allocate, Write-Back.
    WriteAllocateWriteBack = 5,
    /// Normal, Read-Allocate, Write-Allocate, Write-Through.
    ReadWriteAllocateWriteThrough = 6,
    /// Normal, Read-Allocate, Write-Allocate, Write-Back.
    ReadWriteAllocateWriteBack = 7,
}

impl Cacheability {
    /// Decodes the three low bits of `bits`.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::Device,
            1 => Self::NonCacheable,
            2 => Self::ReadAllocateWriteThrough,
            3 => Self::ReadAllocateWriteBack,
            4 => Self::WriteAllocateWriteThrough,
            5 => Self::WriteAllocateWriteBack,
            6 => Self::ReadWriteAllocateWriteThrough,
            _ => Self::ReadWriteAllocateWriteBack,
        }
    }

    /// Returns the three-bit encoding.
    pub const fn into_bits(self) -> u8 {
        self as u8
    }

    /// Returns `true` if accesses with this attribute use caches.
    pub const fn is_cacheable(self) -> bool {
        !matches!(self, Self::Device | Self::NonCacheable)
    }
}

/// Outer cacheability. The encoding is that of [`Cacheability`], except that code 0 selects the
/// inner cacheability for the outer caches as well.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OuterCacheability {
    /// The outer cacheability is the same as the inner one.
    SameAsInner,
    /// A separate attribute, which is never [`Cacheability::Device`].
    Own(Cacheability),
}

impl OuterCacheability {
    /// Decodes the three low bits of `bits`.
    pub const fn from_bits(bits: u8) -> Self {
        match Cacheability::from_bits(bits) {
            Cacheability::Device => Self::SameAsInner,
            own => Self::Own(own),
        }
    }

    /// Returns the three-bit encoding.
    pub const fn into_bits(self) -> u8 {
        match self {
            Self::SameAsInner => 0,
            Self::Own(own) => own.into_bits(),
        }
    }
}
