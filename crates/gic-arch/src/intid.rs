//! Interrupt identifiers (IHI 0069 §2.2).

use core::fmt;
use msi_types::HwIrq;

/// An interrupt identifier, as acknowledged by a CPU interface. Every 32-bit number is a valid
/// value; [`class`](Self::class) returns the kind of interrupt.
///
/// Firmware and manuals number the interrupts of each class from 0, and so do the constructors
/// named after the classes. These constructors return `None` if the number is too large for the
/// class. `Display` writes the class and the INTID: `IntId::ppi(11)` is "PPI 27".
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
    /// 0–15: software-generated interrupts, private to a PE.
    Sgi,
    /// 16–31: private peripheral interrupts.
    Ppi,
    /// 32–1019: shared peripheral interrupts.
    Spi,
    /// 1020–1023: special values returned by the CPU interface. These values do not identify an
    /// interrupt.
    Special,
    /// 1056–1119 (GICv3.1): extended private peripheral interrupts.
    ExtendedPpi,
    /// 4096–5119 (GICv3.1): extended shared peripheral interrupts.
    ExtendedSpi,
    /// From 8192 on: message-based, edge-triggered interrupts, configured in memory tables.
    Lpi,
    /// Not used by the architecture.
    Reserved,
}

impl IntId {
    /// Number of SGIs.
    pub const SGI_COUNT: u32 = 16;
    /// First SPI.
    pub const SPI_BASE: u32 = 32;
    /// First INTID after the SPIs.
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
    /// INTID that an acknowledge returns if no interrupt is pending.
    pub const SPURIOUS: Self = Self(1023);

    /// Returns SGI `number`, which must be between 0 and 15.
    pub const fn sgi(number: u32) -> Option<Self> {
        Self::counted(number, 0, Self::SGI_COUNT)
    }

    /// Returns PPI `number` as numbered by firmware, between 0 and 15. PPI 0 is INTID 16.
    pub const fn ppi(number: u32) -> Option<Self> {
        Self::counted(number, Self::SGI_COUNT, Self::SPI_BASE - Self::SGI_COUNT)
    }

    /// Returns SPI `number` as numbered by firmware, between 0 and 987. SPI 0 is INTID 32.
    pub const fn spi(number: u32) -> Option<Self> {
        Self::counted(number, Self::SPI_BASE, Self::SPI_END - Self::SPI_BASE)
    }

    /// Returns extended PPI `number` as numbered by firmware, between 0 and 63. Extended PPI 0 is
    /// INTID 1056.
    pub const fn eppi(number: u32) -> Option<Self> {
        Self::counted(number, Self::EXTENDED_PPI_BASE, Self::EXTENDED_PPI_COUNT)
    }

    /// Returns extended SPI `number` as numbered by firmware, between 0 and 1023. Extended SPI 0 is
    /// INTID 4096.
    pub const fn espi(number: u32) -> Option<Self> {
        Self::counted(number, Self::EXTENDED_SPI_BASE, Self::EXTENDED_SPI_COUNT)
    }

    /// Returns LPI `number`, counted from the first LPI. LPI 0 is INTID 8192.
    pub const fn lpi(number: u32) -> Option<Self> {
        match Lpi::from_index(number) {
            Some(lpi) => Some(lpi.intid()),
            None => None,
        }
    }

    const fn counted(number: u32, base: u32, count: u32) -> Option<Self> {
        if number < count { Some(Self(base + number)) } else { None }
    }

    /// Creates the identifier with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
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

    /// Returns `true` for an SGI, PPI or extended PPI. Each PE has its own set of these interrupts,
    /// which are configured at its redistributor.
    pub const fn is_private(self) -> bool {
        matches!(self.class(), IntIdClass::Sgi | IntIdClass::Ppi | IntIdClass::ExtendedPpi)
    }

    /// Returns `true` for an SPI or extended SPI. These interrupts are configured at the
    /// distributor.
    pub const fn is_shared(self) -> bool {
        matches!(self.class(), IntIdClass::Spi | IntIdClass::ExtendedSpi)
    }

    /// Returns `true` for an LPI. LPIs are configured in the redistributors' tables.
    #[inline]
    pub const fn is_lpi(self) -> bool {
        matches!(self.class(), IntIdClass::Lpi)
    }

    /// Returns the INTID as a controller-independent number.
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

/// A software-generated interrupt, INTID 0 to 15.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SgiId(u8);

impl SgiId {
    /// Returns the SGI with this number, or `None` if `number` is above 15.
    pub const fn new(number: u8) -> Option<Self> {
        if (number as u32) < IntId::SGI_COUNT { Some(Self(number)) } else { None }
    }

    /// Returns the number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Returns the INTID that the receiver acknowledges.
    pub const fn intid(self) -> IntId {
        IntId::new(self.0 as u32)
    }
}

/// An LPI: an INTID of at least 8192. Converted from the INTID (`Lpi::try_from(8192)`) or from its
/// index among the LPIs ([`from_index`](Self::from_index)).
///
/// ```
/// use gic_arch::Lpi;
///
/// let lpi = Lpi::try_from(8200)?;
/// assert_eq!((lpi.index(), Lpi::from_index(8)), (8, Some(lpi)));
/// assert!(Lpi::try_from(33).is_err());
/// # Ok::<(), gic_arch::NotAnLpi>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Lpi(u32);

/// Error converting to [`Lpi`]: the INTID is below 8192.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is not an LPI: LPIs begin at 8192")]
pub struct NotAnLpi(pub IntId);

impl Lpi {
    /// The lowest LPI.
    pub const FIRST: Self = Self(IntId::LPI_BASE);

    /// Returns the LPI with INTID 8192 + `index`, or `None` if that exceeds 32 bits.
    pub const fn from_index(index: u32) -> Option<Self> {
        match IntId::LPI_BASE.checked_add(index) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Returns the index among the LPIs, which is also the index of the configuration byte.
    pub const fn index(self) -> u32 {
        self.0 - IntId::LPI_BASE
    }

    /// Returns the INTID.
    pub const fn intid(self) -> IntId {
        IntId(self.0)
    }

    /// Returns the INTID as a number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<IntId> for Lpi {
    type Error = NotAnLpi;

    #[inline]
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
