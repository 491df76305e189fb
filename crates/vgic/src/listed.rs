//! The list registers of a vCPU: the interrupt that each was filled with, and the active interrupts
//! that need one.

use crate::candidates::set_bits;
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
    /// Those in use, which are the first ones.
    pub(crate) used: usize,
    pub(crate) listed: [Listed; MAX_LIST_REGISTERS],
    /// Active interrupts of this vCPU, and perhaps some that are not any more.
    pub(crate) active: WiredSet,
}

impl ListRegisters {
    pub(crate) const fn none() -> Self {
        Self {
            count: 0,
            traps_dir: false,
            used: 0,
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
pub(crate) struct WiredSet {
    words: [u64; WiredSet::WORDS],
    /// One bit for each word that is not zero.
    used: u64,
}

impl WiredSet {
    const WORDS: usize = WiredIndex::COUNT.div_ceil(64);

    const fn new() -> Self {
        const { assert!(Self::WORDS <= 64, "one word has a bit for each") };
        Self { words: [0; Self::WORDS], used: 0 }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub(crate) fn insert(&mut self, index: WiredIndex) {
        let word = index.get() / 64;
        self.words[word] |= 1 << (index.get() % 64);
        self.used |= 1 << word;
    }

    /// Keeps what `keep` says.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(WiredIndex) -> bool) {
        for number in set_bits(self.used) {
            let word = &mut self.words[number];
            for bit in set_bits(*word) {
                if !WiredIndex::new(number * 64 + bit).is_some_and(&mut keep) {
                    *word &= !(1 << bit);
                }
            }
            if *word == 0 {
                self.used &= !(1 << number);
            }
        }
    }
}
