//! Interrupt identifiers (IHI 0069 §2.2).

use core::fmt;
use msi_types::Vector;

/// An interrupt identifier, as acknowledged by a CPU interface. Any number can be represented;
/// [`class`](Self::class) says what it means.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct IntId(u32);

/// Class of an INTID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IntIdClass {
    /// 0–15: software-generated, private to a PE.
    Sgi,
    /// 16–31: private peripheral.
    Ppi,
    /// 32–1019: shared peripheral.
    Spi,
    /// 1020–1023: answers of the CPU interface that are no interrupts.
    Special,
    /// 1056–1119 (GICv3.1): private peripheral.
    ExtendedPpi,
    /// 4096–5119 (GICv3.1): shared peripheral.
    ExtendedSpi,
    /// From 8192 on: message-based, edge-triggered, configured by memory tables.
    Lpi,
    /// The gaps.
    Reserved,
}

impl IntId {
    /// Number of SGIs.
    pub const SGI_COUNT: u32 = 16;
    /// First SPI.
    pub const SPI_BASE: u32 = 32;
    /// First number after the SPIs.
    pub const SPI_END: u32 = 1020;
    /// First extended PPI.
    pub const EXTENDED_PPI_BASE: u32 = 1056;
    /// Number of extended PPIs.
    pub const EXTENDED_PPI_COUNT: u32 = 64;
    /// First extended SPI.
    pub const EXTENDED_SPI_BASE: u32 = 4096;
    /// Number of extended SPIs.
    pub const EXTENDED_SPI_COUNT: u32 = 1024;
    /// First LPI.
    pub const LPI_BASE: u32 = 8192;
    /// "Nothing is pending."
    pub const SPURIOUS: Self = Self(1023);

    /// The identifier with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the class of the INTID.
    pub const fn class(self) -> IntIdClass {
        match self.0 {
            0..=15 => IntIdClass::Sgi,
            16..=31 => IntIdClass::Ppi,
            32..=1019 => IntIdClass::Spi,
            1020..=1023 => IntIdClass::Special,
            1056..=1119 => IntIdClass::ExtendedPpi,
            4096..=5119 => IntIdClass::ExtendedSpi,
            8192.. => IntIdClass::Lpi,
            _ => IntIdClass::Reserved,
        }
    }

    /// An SGI, PPI or extended PPI: one per PE, configured at its redistributor.
    pub const fn is_private(self) -> bool {
        matches!(self.class(), IntIdClass::Sgi | IntIdClass::Ppi | IntIdClass::ExtendedPpi)
    }

    /// An SPI or extended SPI: configured at the distributor.
    pub const fn is_shared(self) -> bool {
        matches!(self.class(), IntIdClass::Spi | IntIdClass::ExtendedSpi)
    }

    /// A message-based interrupt of the redistributors' tables.
    pub const fn is_lpi(self) -> bool {
        matches!(self.class(), IntIdClass::Lpi)
    }

    /// The same number as the neutral vocabulary has it.
    pub const fn vector(self) -> Vector {
        Vector::new(self.0)
    }
}

impl From<Vector> for IntId {
    fn from(vector: Vector) -> Self {
        Self(vector.get())
    }
}

impl fmt::Display for IntId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class() {
            IntIdClass::Sgi => write!(f, "SGI {}", self.0),
            IntIdClass::Ppi => write!(f, "PPI {}", self.0),
            IntIdClass::Spi => write!(f, "SPI {}", self.0),
            IntIdClass::Special => write!(f, "special {}", self.0),
            IntIdClass::ExtendedPpi => write!(f, "EPPI {}", self.0),
            IntIdClass::ExtendedSpi => write!(f, "ESPI {}", self.0),
            IntIdClass::Lpi => write!(f, "LPI {}", self.0),
            IntIdClass::Reserved => write!(f, "reserved {}", self.0),
        }
    }
}

impl fmt::Debug for IntId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IntId({self})")
    }
}

/// An INTID from 8192 on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Lpi(u32);

/// The INTID is below 8192.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is not an LPI: LPIs begin at 8192")]
pub struct NotAnLpi(pub IntId);

impl Lpi {
    /// The lowest LPI.
    pub const FIRST: Self = Self(IntId::LPI_BASE);

    /// The LPI `index` places after the first; `None` past the end of the number space.
    pub const fn from_index(index: u32) -> Option<Self> {
        match IntId::LPI_BASE.checked_add(index) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Places after the first LPI: the index of its configuration byte.
    pub const fn index(self) -> u32 {
        self.0 - IntId::LPI_BASE
    }

    /// The INTID.
    pub const fn intid(self) -> IntId {
        IntId(self.0)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<IntId> for Lpi {
    type Error = NotAnLpi;

    fn try_from(intid: IntId) -> Result<Self, NotAnLpi> {
        if intid.is_lpi() { Ok(Self(intid.0)) } else { Err(NotAnLpi(intid)) }
    }
}

impl TryFrom<u32> for Lpi {
    type Error = NotAnLpi;

    fn try_from(number: u32) -> Result<Self, NotAnLpi> {
        IntId::new(number).try_into()
    }
}

impl fmt::Debug for Lpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lpi({})", self.0)
    }
}

impl fmt::Display for Lpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LPI {}", self.0)
    }
}
