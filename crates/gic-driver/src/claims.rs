//! Which wired interrupts have an owner.

use core::num::NonZeroU16;
use gic_arch::{IntId, IntIdClass};
use msi_types::{MsiError, Vector};

/// One bit for each interrupt that has an owner. A private one has one owner for all CPUs.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Those of SGIs and PPIs among them: INTIDs below 32.
    spis: [u64; 16],
    extended: [u64; 16],
    extended_ppis: [u64; 1],
}

impl Claims {
    /// Takes interrupts, all or none.
    ///
    /// # Errors
    /// The first that has an owner, or is no wired one.
    pub(crate) fn claim_all(&mut self, first: Vector, count: NonZeroU16) -> Result<(), MsiError> {
        for offset in 0..count.get() {
            let intid = nth(first, offset)?;
            if !self.claim(intid) {
                self.release_all(first, offset);
                return Err(MsiError::UnknownVector(intid.vector()));
            }
        }
        Ok(())
    }

    /// Gives the first `count` interrupts from `first` on back.
    pub(crate) fn release_all(&mut self, first: Vector, count: u16) {
        (0..count).filter_map(|offset| nth(first, offset).ok()).for_each(|intid| self.release(intid));
    }

    /// Takes an interrupt; `false` if it has an owner, or is no wired one.
    fn claim(&mut self, intid: IntId) -> bool {
        match self.bit(intid) {
            Some((word, mask)) if *word & mask == 0 => {
                *word |= mask;
                true
            }
            _ => false,
        }
    }

    fn release(&mut self, intid: IntId) {
        if let Some((word, mask)) = self.bit(intid) {
            *word &= !mask;
        }
    }

    fn bit(&mut self, intid: IntId) -> Option<(&mut u64, u64)> {
        let (words, index) = match intid.class() {
            IntIdClass::Sgi | IntIdClass::Ppi | IntIdClass::Spi => (&mut self.spis[..], intid.get()),
            IntIdClass::ExtendedSpi => (&mut self.extended[..], intid.get() - IntId::EXTENDED_SPI_BASE),
            IntIdClass::ExtendedPpi => (&mut self.extended_ppis[..], intid.get() - IntId::EXTENDED_PPI_BASE),
            _ => return None,
        };
        Some((words.get_mut(index as usize / 64)?, 1 << (index % 64)))
    }
}

/// The interrupt `offset` places after `first`.
pub(crate) fn nth(first: Vector, offset: u16) -> Result<IntId, MsiError> {
    first.checked_add(u32::from(offset)).map(IntId::from).ok_or(MsiError::UnknownVector(first))
}
