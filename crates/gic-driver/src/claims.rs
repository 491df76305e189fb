//! Tracks which wired interrupts have an owner, and which are being rerouted.

use core::num::NonZeroU16;
use gic_arch::{IntId, IntIdClass};
use msi_types::{HwIrq, MsiError};

/// Reason why a private interrupt cannot be used like an SPI, with the usual mistake.
pub(crate) const PRIVATE: &str =
    "each CPU has its own private interrupts; SPI n of a devicetree is INTID 32 + n";

/// Claimed wired interrupts. A claim on a private interrupt covers all CPUs.
#[derive(Debug, Default)]
pub(crate) struct Claims(WiredBits);

impl Claims {
    /// Claims `count` interrupts starting at `first`, or none of them on error.
    ///
    /// # Errors
    /// [`MsiError::InUse`] with the first interrupt that already has an owner;
    /// [`MsiError::UnknownVector`] with the first INTID that is not a wired interrupt.
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

    /// Returns `true` if the interrupt has an owner.
    pub(crate) fn has(&mut self, intid: IntId) -> bool {
        self.0.get(intid)
    }

    /// Releases `count` interrupts starting at `first`.
    pub(crate) fn release_all(&mut self, first: HwIrq, count: u16) {
        for intid in (0..count).filter_map(|offset| nth(first, offset).ok()) {
            self.0.replace(intid, false);
        }
    }
}

/// Wired interrupts that are being rerouted. A rerouted interrupt stays disabled during the move; a
/// request to enable or disable it takes effect when the move ends.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    moving: WiredBits,
    /// Interrupts that must be enabled when their move ends.
    enabled: WiredBits,
}

/// Error for an interrupt that is already being moved or is not wired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Moving;

impl Moves {
    /// Begins a move. `enabled` states whether the interrupt was enabled before the move.
    pub(crate) fn begin(&mut self, intid: IntId, enabled: bool) -> Result<(), Moving> {
        if self.moving.replace(intid, true) != Some(false) {
            return Err(Moving);
        }
        self.enabled.replace(intid, enabled);
        Ok(())
    }

    /// Ends a move. Returns `true` if the caller must enable the interrupt.
    pub(crate) fn end(&mut self, intid: IntId) -> bool {
        self.moving.replace(intid, false);
        self.enabled.replace(intid, false) == Some(true)
    }

    /// If the interrupt is being moved, records whether to enable it afterwards and returns
    /// [`Moving`].
    pub(crate) fn note(&mut self, intid: IntId, enabled: bool) -> Result<(), Moving> {
        if self.moving.get(intid) {
            self.enabled.replace(intid, enabled);
            return Err(Moving);
        }
        Ok(())
    }
}

/// One bit per wired interrupt.
#[derive(Debug, Default)]
struct WiredBits {
    /// Bits for SPIs, plus SGIs and PPIs (INTIDs below 32).
    spis: [u64; 16],
    extended: [u64; 16],
    extended_ppis: [u64; 1],
}

impl WiredBits {
    /// Replaces an interrupt's bit and returns the old value. Returns `None` for interrupts that
    /// are not wired.
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

/// Returns the interrupt `offset` INTIDs after `first`.
pub(crate) fn nth(first: HwIrq, offset: u16) -> Result<IntId, MsiError> {
    first.checked_add(u32::from(offset)).map(IntId::from).ok_or(MsiError::UnknownVector(first))
}
