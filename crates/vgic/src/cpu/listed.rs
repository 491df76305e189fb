//! The list registers of a vCPU: the interrupt that each was filled with, and the active interrupts
//! that need one.

use crate::lpi::ListedLpi;
use crate::wired::Filled;
use crate::wired::candidates::set_bits;
use crate::wired::index::WiredIndex;
use gic_arch::ich::{Hcr, ListRegister, Vmcr};

/// Most list registers that a CPU has.
pub const MAX_LIST_REGISTERS: usize = 16;

/// State of a CPU's virtual interface: to be loaded before the guest is entered and stored after it
/// has exited. Registers that the CPU does not have are zero, and ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VirtualInterface {
    /// `ICH_HCR_EL2`. The hypervisor may add traps of its own; of what comes back, `EOIcount` is
    /// looked at.
    pub hcr: Hcr,
    /// `ICH_VMCR_EL2`.
    pub vmcr: Vmcr,
    /// `ICH_AP<n>R<m>_EL2`, by group and index.
    pub active_priorities: [[u32; 4]; 2],
    /// `ICH_LR<n>_EL2`.
    pub list: [ListRegister; MAX_LIST_REGISTERS],
}

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
    /// Loaded at the last entry. Outside of the guest, all of its list registers are empty.
    pub(crate) interface: VirtualInterface,
    /// `interface`'s other registers were made for this. `None`: the CPU interface has changed
    /// since.
    pub(crate) made_for: Option<Unlisted>,
}

impl ListRegisters {
    pub(crate) const fn none() -> Self {
        Self {
            count: 0,
            traps_dir: false,
            used: 0,
            listed: [Listed::Nothing; MAX_LIST_REGISTERS],
            active: WiredSet::new(),
            interface: VirtualInterface {
                hcr: Hcr::new(),
                vmcr: Vmcr::new(),
                active_priorities: [[0; 4]; 2],
                list: [ListRegister::new(); MAX_LIST_REGISTERS],
            },
            made_for: None,
        }
    }

    /// Fills the next list register, if there is one.
    pub(crate) fn push(&mut self, listed: Listed, register: ListRegister) {
        if !self.is_full() {
            self.listed[self.used] = listed;
            self.interface.list[self.used] = register;
            self.used += 1;
        }
    }

    /// Are all in use?
    pub(crate) const fn is_full(&self) -> bool {
        self.used >= self.count
    }

    /// Empties all, and returns the number of those that were in use.
    pub(crate) fn empty(&mut self) -> usize {
        let used = core::mem::take(&mut self.used);
        self.interface.list[..used].fill(ListRegister::new());
        used
    }
}

/// Interrupts that got no list register.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Unlisted {
    pub(crate) pending: bool,
    pub(crate) active: bool,
    /// By group: something is pending that only the guest's own enable keeps from being signalled.
    pub(crate) held_back: [bool; 2],
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
