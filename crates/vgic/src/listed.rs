//! The list registers of a vCPU: the interrupt that each was filled with, and the active interrupts
//! that need one.

use crate::lpi::ListedLpi;
use crate::wired::Filled;
use crate::wired_index::WiredIndex;

/// Most list registers that a CPU has.
pub const MAX_LIST_REGISTERS: usize = 16;

/// A vCPU's list registers. Without any, its CPU interface is software.
pub(crate) struct ListRegisters {
    pub(crate) count: usize,
    /// `ICH_VTR_EL2.TDS`: `ICC_DIR_EL1` can be trapped by itself.
    pub(crate) traps_dir: bool,
    pub(crate) listed: [Listed; MAX_LIST_REGISTERS],
    /// Active interrupts of this vCPU, and perhaps some that are not any more.
    pub(crate) active: WiredSet,
}

impl ListRegisters {
    pub(crate) const fn none() -> Self {
        Self {
            count: 0,
            traps_dir: false,
            listed: [Listed::Nothing; MAX_LIST_REGISTERS],
            active: WiredSet::new(),
        }
    }
}

/// Contents of a list register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Listed {
    Nothing,
    Wired(WiredIndex, Filled),
    Lpi(ListedLpi),
}

/// A set of wired interrupts.
pub(crate) struct WiredSet([u64; WiredSet::WORDS]);

impl WiredSet {
    const WORDS: usize = WiredIndex::COUNT.div_ceil(64);

    const fn new() -> Self {
        Self([0; Self::WORDS])
    }

    pub(crate) fn insert(&mut self, index: WiredIndex) {
        self.0[index.get() / 64] |= 1 << (index.get() % 64);
    }

    /// Keeps what `keep` says.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(WiredIndex) -> bool) {
        for (word, first) in self.0.iter_mut().zip((0..).step_by(64)) {
            let mut bits = *word;
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                if !WiredIndex::new(first + bit as usize).is_some_and(&mut keep) {
                    *word &= !(1 << bit);
                }
            }
        }
    }
}
