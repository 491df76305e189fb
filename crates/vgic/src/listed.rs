//! The list registers of a vCPU: the interrupt that each was filled with, and the active interrupts
//! that need one.

use crate::lpi::ListedLpi;
use crate::slot::Slot;
use crate::wired::Filled;

/// Most list registers that a CPU has.
pub const MAX_LIST_REGISTERS: usize = 16;

/// A vCPU's list registers. Without any, its CPU interface is software.
pub(crate) struct ListRegisters {
    pub(crate) count: usize,
    /// `ICH_VTR_EL2.TDS`: `ICC_DIR_EL1` can be trapped by itself.
    pub(crate) traps_dir: bool,
    pub(crate) listed: [Listed; MAX_LIST_REGISTERS],
    /// Active interrupts of this vCPU, and perhaps some that are not any more.
    pub(crate) active: SlotSet,
}

impl ListRegisters {
    pub(crate) const fn none() -> Self {
        Self {
            count: 0,
            traps_dir: false,
            listed: [Listed::Nothing; MAX_LIST_REGISTERS],
            active: SlotSet::new(),
        }
    }
}

/// Contents of a list register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Listed {
    Nothing,
    Wired(Slot, Filled),
    Lpi(ListedLpi),
}

/// A set of wired interrupts.
pub(crate) struct SlotSet([u64; SlotSet::WORDS]);

impl SlotSet {
    const WORDS: usize = Slot::COUNT.div_ceil(64);

    const fn new() -> Self {
        Self([0; Self::WORDS])
    }

    pub(crate) fn insert(&mut self, slot: Slot) {
        self.0[slot.index() / 64] |= 1 << (slot.index() % 64);
    }

    /// Keeps what `keep` says.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(Slot) -> bool) {
        for (word, first) in self.0.iter_mut().zip((0..).step_by(64)) {
            let mut bits = *word;
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                if !Slot::new(first + bit as usize).is_some_and(&mut keep) {
                    *word &= !(1 << bit);
                }
            }
        }
    }
}
