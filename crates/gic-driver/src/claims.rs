//! Wired interrupts that have an owner, and those that are being moved.

use core::num::NonZeroU16;
use gic_arch::{IntId, IntIdClass};
use msi_types::{HwIrq, MsiError};

/// One bit for each interrupt that has an owner. A private one has one owner for all CPUs.
#[derive(Debug, Default)]
pub(crate) struct Claims(WiredBits);

impl Claims {
    /// Claims interrupts, all or none.
    ///
    /// # Errors
    /// [`MsiError::InUse`] with the first interrupt that has an owner, [`MsiError::UnknownVector`]
    /// with the first one that is not wired.
    pub(crate) fn claim_all(&mut self, first: HwIrq, count: NonZeroU16) -> Result<(), MsiError> {
        for offset in 0..count.get() {
            let intid = nth(first, offset)?;
            let refused = match self.0.replace(intid, true) {
                Some(false) => continue,
                Some(true) => MsiError::InUse(intid.hwirq()),
                None => MsiError::UnknownVector(intid.hwirq()),
            };
            self.release_all(first, offset);
            return Err(refused);
        }
        Ok(())
    }

    /// Releases the first `count` interrupts from `first` on.
    pub(crate) fn release_all(&mut self, first: HwIrq, count: u16) {
        for intid in (0..count).filter_map(|offset| nth(first, offset).ok()) {
            self.0.replace(intid, false);
        }
    }
}

/// Interrupts whose route changes. Each is disabled meanwhile; enables and disables of it take
/// effect at the end.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    moving: WiredBits,
    /// Interrupts to enable at the end of their move.
    enabled: WiredBits,
}

/// The interrupt is being moved already, or cannot be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Moving;

impl Moves {
    /// Begins a move of an interrupt that is `enabled` now.
    pub(crate) fn begin(&mut self, intid: IntId, enabled: bool) -> Result<(), Moving> {
        if self.moving.replace(intid, true) != Some(false) {
            return Err(Moving);
        }
        self.enabled.replace(intid, enabled);
        Ok(())
    }

    /// Ends a move: is the interrupt to be enabled?
    pub(crate) fn end(&mut self, intid: IntId) -> bool {
        self.moving.replace(intid, false);
        self.enabled.replace(intid, false) == Some(true)
    }

    /// Notes for an interrupt that is moving whether it is enabled at the end; [`Moving`] if it is.
    pub(crate) fn note(&mut self, intid: IntId, enabled: bool) -> Result<(), Moving> {
        if self.moving.get(intid) {
            self.enabled.replace(intid, enabled);
            return Err(Moving);
        }
        Ok(())
    }
}

/// One bit for each wired interrupt.
#[derive(Debug, Default)]
struct WiredBits {
    /// Those of SGIs and PPIs among them: INTIDs below 32.
    spis: [u64; 16],
    extended: [u64; 16],
    extended_ppis: [u64; 1],
}

impl WiredBits {
    /// Returns the old value; `None` if the interrupt is no wired one.
    fn replace(&mut self, intid: IntId, value: bool) -> Option<bool> {
        let (word, mask) = self.bit(intid)?;
        let old = *word & mask != 0;
        *word = if value { *word | mask } else { *word & !mask };
        Some(old)
    }

    fn get(&mut self, intid: IntId) -> bool {
        self.bit(intid).is_some_and(|(word, mask)| *word & mask != 0)
    }

    fn bit(&mut self, intid: IntId) -> Option<(&mut u64, u64)> {
        let (words, index) = match intid.class() {
            IntIdClass::Sgi | IntIdClass::Ppi | IntIdClass::Spi => {
                (&mut self.spis[..], intid.get())
            }
            IntIdClass::ExtendedSpi => {
                (&mut self.extended[..], intid.get() - IntId::EXTENDED_SPI_BASE)
            }
            IntIdClass::ExtendedPpi => {
                (&mut self.extended_ppis[..], intid.get() - IntId::EXTENDED_PPI_BASE)
            }
            _ => return None,
        };
        Some((words.get_mut(index as usize / 64)?, 1 << (index % 64)))
    }
}

/// The interrupt `offset` places after `first`.
pub(crate) fn nth(first: HwIrq, offset: u16) -> Result<IntId, MsiError> {
    first.checked_add(u32::from(offset)).map(IntId::from).ok_or(MsiError::UnknownVector(first))
}
