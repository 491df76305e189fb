//! A dense number for every wired interrupt a PE can see: its private ones, then the shared ones.

use gic_arch::{IntId, IntIdClass, IntIdRange};

/// The place of a wired interrupt in a PE's candidate bitmap: SGIs and PPIs, extended PPIs, a gap
/// up to the next word's multiple, SPIs, extended SPIs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Slot(u16);

impl Slot {
    /// Private interrupts, with the extended ones.
    pub(crate) const PRIVATE: usize = 96;
    /// Shared interrupts, with the extended ones and the gaps between.
    pub(crate) const SHARED: usize = 2048;
    /// One past the highest slot.
    pub(crate) const COUNT: usize = SHARED_BASE as usize + Self::SHARED;

    /// The slot of an interrupt, implemented or not; `None` for LPIs, special and reserved numbers.
    pub(crate) fn of(intid: IntId) -> Option<Self> {
        let slot = match intid.class() {
            IntIdClass::Sgi | IntIdClass::Ppi | IntIdClass::ExtendedPpi => {
                IntIdRange::Private.index_of(intid)?
            }
            IntIdClass::Spi => u32::from(SHARED_BASE) + intid.get() - IntId::SPI_BASE,
            IntIdClass::ExtendedSpi => {
                u32::from(EXTENDED_BASE) + intid.get() - IntId::EXTENDED_SPI_BASE
            }
            IntIdClass::Special | IntIdClass::Lpi | IntIdClass::Reserved => return None,
        };
        u16::try_from(slot).ok().map(Self)
    }

    /// The slot with this number; `None` past the last.
    pub(crate) fn new(number: usize) -> Option<Self> {
        if number < Self::COUNT { u16::try_from(number).ok().map(Self) } else { None }
    }

    /// The shared slot with this index; `None` past the last.
    pub(crate) fn shared(index: usize) -> Option<Self> {
        Self::new(index.checked_add(SHARED_BASE as usize)?)
    }

    /// The slot's number, below [`COUNT`](Self::COUNT).
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The slot's index among the shared ones; `None` for a private one.
    pub(crate) const fn shared_index(self) -> Option<usize> {
        self.index().checked_sub(SHARED_BASE as usize)
    }

    /// The interrupt. Slots in the gaps name numbers that are not implemented.
    pub(crate) fn intid(self) -> IntId {
        let number = u32::from(self.0);
        IntId::new(match self.0 {
            0..32 => number,
            32..SHARED_BASE => number - 32 + IntId::EXTENDED_PPI_BASE,
            SHARED_BASE..EXTENDED_BASE => number - u32::from(SHARED_BASE) + IntId::SPI_BASE,
            EXTENDED_BASE.. => number - u32::from(EXTENDED_BASE) + IntId::EXTENDED_SPI_BASE,
        })
    }
}

/// The slot of the first SPI.
const SHARED_BASE: u16 = 128;
/// The slot of the first extended SPI.
const EXTENDED_BASE: u16 = SHARED_BASE + 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wired_intid_has_its_own_slot() {
        for number in 0..10_000 {
            let intid = IntId::new(number);
            let wired = intid.is_private() || intid.is_shared();
            assert_eq!(Slot::of(intid).is_some(), wired, "{intid}");
            if let Some(slot) = Slot::of(intid) {
                assert_eq!((slot.intid(), Slot::new(slot.index())), (intid, Some(slot)));
                assert_eq!(slot.shared_index().is_some(), intid.is_shared());
                assert_eq!(slot.shared_index().and_then(Slot::shared).is_some(), intid.is_shared());
            }
        }
    }
}
