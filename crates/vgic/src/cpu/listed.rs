//! Contents of a vCPU's list registers, and the active interrupts that need one.

use crate::lpi::ListedLpi;
use crate::wired::Filled;
use crate::wired::candidates::set_bits;
use crate::wired::index::WiredIndex;
use gic_arch::ich::{Hcr, ListRegister, Vmcr};

/// Maximum number of list registers of a CPU.
pub const MAX_LIST_REGISTERS: usize = 16;

/// State of a CPU's virtual interface, to be loaded before a guest entry and stored after the exit.
/// Registers that the CPU does not implement are zero and are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VirtualInterface {
    /// `ICH_HCR_EL2`. The hypervisor may add its own traps. At the exit, only `EOIcount` is read.
    pub hcr: Hcr,
    /// `ICH_VMCR_EL2`.
    pub vmcr: Vmcr,
    /// `ICH_AP<n>R<m>_EL2`, by group and index.
    pub active_priorities: [[u32; 4]; 2],
    /// `ICH_LR<n>_EL2`.
    pub list: [ListRegister; MAX_LIST_REGISTERS],
}

/// List registers of a vCPU. If `count` is zero, its CPU interface is emulated in software.
pub(crate) struct ListRegisters {
    pub(crate) count: usize,
    /// `ICH_VTR_EL2.TDS`: the CPU can trap `ICC_DIR_EL1` separately.
    pub(crate) traps_dir: bool,
    /// Number of list registers in use, which are the first ones.
    pub(crate) used: usize,
    pub(crate) listed: [Listed; MAX_LIST_REGISTERS],
    /// Active interrupts of this vCPU, possibly including some that are no longer active.
    pub(crate) active: WiredSet,
    /// Interface loaded at the last entry. Outside of the guest, its list registers are all empty.
    pub(crate) interface: VirtualInterface,
    /// The state for which the other registers of `interface` were computed, or `None` if the CPU
    /// interface has changed since.
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

    /// Fills the next list register, unless all are in use.
    pub(crate) fn push(&mut self, listed: Listed, register: ListRegister) {
        if !self.is_full() {
            self.listed[self.used] = listed;
            self.interface.list[self.used] = register;
            self.used += 1;
        }
    }

    /// Returns `true` if all list registers are in use.
    pub(crate) const fn is_full(&self) -> bool {
        self.used >= self.count
    }

    /// Empties all list registers, and returns the number of those that were in use.
    pub(crate) fn empty(&mut self) -> usize {
        let used = core::mem::take(&mut self.used);
        self.interface.list[..used].fill(ListRegister::new());
        used
    }
}

/// Summary of the interrupts for which no list register was free.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Unlisted {
    pub(crate) pending: bool,
    pub(crate) active: bool,
    /// By group, `true` if an interrupt is pending that would be signaled if the guest enabled the
    /// group.
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
    /// One bit for each nonzero word.
    used: u64,
}

impl WiredSet {
    const WORDS: usize = WiredIndex::COUNT.div_ceil(64);

    const fn new() -> Self {
        const { assert!(Self::WORDS <= 64, "one word must have a bit for each") };
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

    /// Keeps the interrupts for which `keep` returns `true`.
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
