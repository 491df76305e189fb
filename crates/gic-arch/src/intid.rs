//! Interrupt identifiers (IHI 0069 §2.2).

use core::fmt;
use msi_types::HwIrq;

/// An interrupt identifier, as acknowledged by a CPU interface. Any number can be represented;
/// [`class`](Self::class) says what it means.
///
/// Firmware and manuals count the interrupts of each class from 0; so do the constructors that are
/// named after the classes. They return `None` beyond the class. `Display` writes the class and the
/// INTID: `IntId::ppi(11)` is "PPI 27".
///
/// ```
/// use gic_arch::IntId;
///
/// const VIRTUAL_TIMER: IntId = IntId::ppi(11).expect("there are 16");
/// assert_eq!(VIRTUAL_TIMER, IntId::new(27));
/// assert_eq!(IntId::spi(1), Some(IntId::new(33)));
/// assert_eq!(IntId::spi(988), None);
/// ```
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

    /// The SGI `number`, 0 to 15.
    pub const fn sgi(number: u32) -> Option<Self> {
        Self::counted(number, 0, Self::SGI_COUNT)
    }

    /// The PPI `number`, 0 to 15, as firmware counts: INTID 16 and following.
    pub const fn ppi(number: u32) -> Option<Self> {
        Self::counted(number, Self::SGI_COUNT, Self::SPI_BASE - Self::SGI_COUNT)
    }

    /// The SPI `number`, 0 to 987, as firmware counts: INTID 32 and following.
    pub const fn spi(number: u32) -> Option<Self> {
        Self::counted(number, Self::SPI_BASE, Self::SPI_END - Self::SPI_BASE)
    }

    /// The extended PPI `number`, 0 to 63, as firmware counts: INTID 1056 and following.
    pub const fn eppi(number: u32) -> Option<Self> {
        Self::counted(number, Self::EXTENDED_PPI_BASE, Self::EXTENDED_PPI_COUNT)
    }

    /// The extended SPI `number`, 0 to 1023, as firmware counts: INTID 4096 and following.
    pub const fn espi(number: u32) -> Option<Self> {
        Self::counted(number, Self::EXTENDED_SPI_BASE, Self::EXTENDED_SPI_COUNT)
    }

    /// The LPI `number` places after the first: INTID 8192 and following.
    pub const fn lpi(number: u32) -> Option<Self> {
        match Lpi::from_index(number) {
            Some(lpi) => Some(lpi.intid()),
            None => None,
        }
    }

    const fn counted(number: u32, base: u32, count: u32) -> Option<Self> {
        if number < count { Some(Self(base + number)) } else { None }
    }

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
    pub const fn hwirq(self) -> HwIrq {
        HwIrq::new(self.0)
    }
}

impl From<HwIrq> for IntId {
    fn from(hwirq: HwIrq) -> Self {
        Self(hwirq.get())
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

impl fmt::LowerHex for IntId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::UpperHex for IntId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::UpperHex::fmt(&self.0, f)
    }
}

impl fmt::Debug for IntId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IntId({self})")
    }
}

/// A software-generated interrupt: INTID 0 to 15.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SgiId(u8);

impl SgiId {
    /// The SGI with this number; `None` above 15.
    pub const fn new(number: u8) -> Option<Self> {
        if (number as u32) < IntId::SGI_COUNT { Some(Self(number)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The INTID that the receiver acknowledges.
    pub const fn intid(self) -> IntId {
        IntId::new(self.0 as u32)
    }
}

/// An INTID of at least 8192, converted from the INTID (`Lpi::try_from(8192)`) or from its index
/// among the LPIs ([`from_index`](Self::from_index)).
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

impl fmt::LowerHex for Lpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::UpperHex for Lpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::UpperHex::fmt(&self.0, f)
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
