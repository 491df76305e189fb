//! Dense numbers for the wired interrupts that a PE can see: first its private interrupts, then the
//! shared interrupts.

use gic_arch::{IntId, IntIdClass};
use msi_types::{Cpu, Line};

/// Index of a wired interrupt in a PE's candidate bitmap. The order is: The order is SGIs, PPIs,
/// extended PPIs, a gap up to a multiple of 64, SPIs, extended SPIs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct WiredIndex(u16);

impl WiredIndex {
    /// Number of private interrupts, including extended PPIs.
    pub(crate) const PRIVATE: usize = 96;
    /// Number of shared interrupts, including extended SPIs and the gaps between them.
    pub(crate) const SHARED: usize = 2048;
    /// Number of indices, i.e. the highest index plus one.
    pub(crate) const COUNT: usize = SHARED_BASE as usize + Self::SHARED;

    /// Returns the index of an interrupt, whether or not it is implemented, or `None` for LPIs,
    /// special and reserved INTIDs.
    pub(crate) fn of(intid: IntId) -> Option<Self> {
        let index = match intid.class() {
            IntIdClass::Sgi | IntIdClass::Ppi => intid.get(),
            IntIdClass::ExtendedPpi => intid.get() - IntId::EXTENDED_PPI_BASE + 32,
            IntIdClass::Spi => u32::from(SHARED_BASE) + intid.get() - IntId::SPI_BASE,
            IntIdClass::ExtendedSpi => {
                u32::from(EXTENDED_BASE) + intid.get() - IntId::EXTENDED_SPI_BASE
            }
            IntIdClass::Special | IntIdClass::Lpi | IntIdClass::Reserved => return None,
        };
        u16::try_from(index).ok().map(Self)
    }

    /// Creates the index with this number, or returns `None` if the number is out of range.
    pub(crate) fn new(number: usize) -> Option<Self> {
        if number < Self::COUNT { u16::try_from(number).ok().map(Self) } else { None }
    }

    /// Returns the number, which is less than [`COUNT`](Self::COUNT).
    pub(crate) const fn get(self) -> usize {
        self.0 as usize
    }

    /// Returns the interrupt's number among the shared interrupts, or `None` for a private
    /// interrupt.
    pub(crate) const fn shared_index(self) -> Option<usize> {
        self.get().checked_sub(SHARED_BASE as usize)
    }

    /// Returns the INTID. Indices in the gaps map to INTIDs that are not implemented.
    pub(crate) fn intid(self) -> IntId {
        let number = u32::from(self.0);
        IntId::new(match self.0 {
            0..32 => number,
            32..SHARED_BASE => number - 32 + IntId::EXTENDED_PPI_BASE,
            SHARED_BASE..EXTENDED_BASE => number - u32::from(SHARED_BASE) + IntId::SPI_BASE,
            EXTENDED_BASE.. => number - u32::from(EXTENDED_BASE) + IntId::EXTENDED_SPI_BASE,
        })
    }

    /// Returns the interrupt's line. For a private interrupt, returns `cpu`'s line.
    pub(super) fn line(self, cpu: Cpu) -> Line {
        line_of(self.intid(), cpu)
    }
}

/// Returns the line of a wired interrupt. For a private interrupt, returns `cpu`'s line.
pub(super) fn line_of(intid: IntId, cpu: Cpu) -> Line {
    if intid.is_private() { Line::Ppi { cpu, intid: intid.get() } } else { Line::Spi(intid.get()) }
}

/// The index of the first SPI.
const SHARED_BASE: u16 = 128;
/// The index of the first extended SPI.
const EXTENDED_BASE: u16 = SHARED_BASE + 1024;

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wired_intid_has_its_own_slot() {
        for number in 0..10_000 {
            let intid = IntId::new(number);
            let wired = intid.is_private() || intid.is_shared();
            assert_eq!(WiredIndex::of(intid).is_some(), wired, "{intid}");
            if let Some(index) = WiredIndex::of(intid) {
                assert_eq!((index.intid(), WiredIndex::new(index.get())), (intid, Some(index)));
                assert_eq!(index.shared_index().is_some(), intid.is_shared());
            }
        }
    }
}
