//! LPIs left pending by a previous kernel in adopted tables.
//!
//! An adopted pending table must not be cleared in memory, because its redistributor is using the
//! table. Instead, the sender must clear each LPI at each redistributor with an adopted table
//! before the LPI's first owner uses it. A bit per LPI records that the LPI was cleared.

use super::LpiRange;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::Lpi;

/// A redistributor whose pending table was adopted, with the two numbers that ITS commands may use
/// to refer to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StaleAt {
    /// RD_base.
    pub(crate) address: u64,
    /// `GICR_TYPER.Processor_Number`.
    pub(crate) processor_number: u16,
}

/// Record of the redistributors at which LPIs may be pending for a previous kernel, and of the LPIs
/// that have been cleared there.
#[derive(Debug)]
pub(super) struct Stale {
    redistributors: Vec<StaleAt>,
    /// One bit per LPI, set after the LPI was cleared at all of `redistributors`.
    cleared: Vec<u64>,
}

impl Stale {
    /// Creates a record with room for this many LPIs and redistributors.
    pub(super) fn new(lpis: u32, redistributors: usize) -> Result<Self, TryReserveError> {
        let mut all = Vec::new();
        all.try_reserve_exact(redistributors)?;
        let cleared = try_collect(core::iter::repeat_n(0, lpis.div_ceil(u64::BITS) as usize))?;
        Ok(Self { redistributors: all, cleared })
    }

    /// Adds a redistributor at which no LPI has been cleared yet. This function doesn't allocate,
    /// because the list has room for all redistributors.
    pub(super) fn add(&mut self, at: StaleAt) {
        self.remove(at.address);
        self.redistributors.push(at);
        self.cleared.fill(0);
    }

    pub(super) fn remove(&mut self, address: u64) {
        self.redistributors.retain(|at| at.address != address);
    }

    pub(super) fn get(&self, index: usize) -> Option<StaleAt> {
        self.redistributors.get(index).copied()
    }

    pub(super) fn is_cleared(&self, range: &LpiRange) -> bool {
        range.iter().all(|lpi| {
            let (word, bit) = locate(lpi);
            self.cleared.get(word).is_some_and(|bits| bits & bit != 0)
        })
    }

    pub(super) fn note_cleared(&mut self, range: &LpiRange) {
        for (word, bit) in range.iter().map(locate) {
            if let Some(bits) = self.cleared.get_mut(word) {
                *bits |= bit;
            }
        }
    }
}

fn locate(lpi: Lpi) -> (usize, u64) {
    let index = lpi.index();
    ((index / u64::BITS) as usize, 1 << (index % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU32;

    #[test]
    fn noting_cleared_lpis_needs_no_heap() {
        let mut stale = Stale::new(100, 1).unwrap();
        let capacity = (stale.redistributors.capacity(), stale.cleared.capacity());
        let range = LpiRange::from_parts(Lpi::FIRST, NonZeroU32::new(70).unwrap());
        stale.add(StaleAt { address: 0x900_0000, processor_number: 0 });
        assert!(!stale.is_cleared(&range));
        stale.note_cleared(&range);
        assert!(stale.is_cleared(&range));
        assert_eq!((stale.redistributors.capacity(), stale.cleared.capacity()), capacity);
    }
}
