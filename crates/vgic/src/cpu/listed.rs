//! List register contents, and the active interrupts that need a list register.

use crate::lpi::{ListedLpi, ReadyLpi};
use crate::wired::candidates::set_bits;
use crate::wired::index::WiredIndex;
use crate::wired::{Filled, Wired};
use core::ops::{BitOr, ControlFlow};
use gic_arch::ich::{Hcr, ListRegister, Vmcr};
use msi_types::Cpu;
use msi_types::explain::Group;

/// Maximum number of list registers per CPU.
pub const MAX_LIST_REGISTERS: usize = 16;

/// Virtual interface state for one CPU, to be loaded before a guest entry and stored after the
/// exit. Registers that the CPU does not implement are zero and are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct VirtualInterface {
    /// `ICH_HCR_EL2`. The hypervisor may set additional traps. After the exit, only the `EOIcount`
    /// field is read.
    pub hcr: Hcr,
    /// `ICH_VMCR_EL2`.
    pub vmcr: Vmcr,
    /// `ICH_AP<n>R<m>_EL2`, by group and index.
    pub active_priorities: [[u32; 4]; 2],
    /// `ICH_LR<n>_EL2`.
    pub list: [ListRegister; MAX_LIST_REGISTERS],
}

impl VirtualInterface {
    /// Returns the state of an interface without interrupts, which signals none.
    pub const fn empty() -> Self {
        Self {
            hcr: Hcr::new(),
            vmcr: Vmcr::new(),
            active_priorities: [[0; 4]; 2],
            list: [ListRegister::new(); MAX_LIST_REGISTERS],
        }
    }
}

/// A vCPU's list registers. If `count` is zero, the CPU interface is emulated in software.
pub(crate) struct ListRegisters {
    pub(crate) count: usize,
    /// `ICH_VTR_EL2.TDS`: the CPU can trap `ICC_DIR_EL1` separately.
    pub(crate) traps_dir: bool,
    /// `true` from a guest entry to the exit.
    pub(crate) is_entered: bool,
    /// Number of list registers in use, starting with the first.
    pub(crate) used: usize,
    pub(crate) listed: [Listed; MAX_LIST_REGISTERS],
    /// Interrupts that are active at this vCPU. The set may also contain interrupts that have
    /// become inactive.
    pub(crate) active: WiredSet,
    /// Interface state loaded at the last guest entry. Outside the guest, all of its list registers
    /// are empty.
    pub(crate) interface: VirtualInterface,
    /// The state for which the other registers in `interface` were computed, or `None` if the CPU
    /// interface has changed since.
    pub(crate) made_for: Option<Unlisted>,
}

impl ListRegisters {
    pub(crate) const fn none() -> Self {
        Self {
            count: 0,
            traps_dir: false,
            is_entered: false,
            used: 0,
            listed: [Listed::Nothing; MAX_LIST_REGISTERS],
            active: WiredSet::new(),
            interface: VirtualInterface::empty(),
            made_for: None,
        }
    }

    /// Records the interrupts that are active at this vCPU, because they need list registers. No-op
    /// for a software CPU interface.
    pub(crate) fn note_active(&mut self, wired: &Wired, cpu: Cpu) {
        if self.count > 0 {
            wired.active_indices(cpu).for_each(|index| self.active.insert(index));
        }
    }

    /// Fills the next list register. At least one must be free. Breaks if none is free afterwards.
    pub(crate) fn push(&mut self, listed: Listed, register: ListRegister) -> ControlFlow<()> {
        let next = self.used % MAX_LIST_REGISTERS;
        self.set(next, listed, register);
        self.used = next + 1;
        if self.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Fills a list register that is in use or, unless all are, the next one.
    #[inline]
    pub(crate) fn put(&mut self, index: usize, listed: Listed, register: ListRegister) {
        self.set(index % MAX_LIST_REGISTERS, listed, register);
        self.used = self.used.max(index + 1);
    }

    fn set(&mut self, index: usize, listed: Listed, register: ListRegister) {
        self.listed[index] = listed;
        self.interface.list[index] = register;
    }

    /// Returns the list register for an LPI that arrives in guest mode: the one that holds the LPI,
    /// if `is_listed` is set, and otherwise the next one. Returns `None` if it is in use, if
    /// another vCPU holds the LPI, or if another event's LPI has the same INTID.
    pub(crate) fn place_for(
        &self,
        ready: ReadyLpi,
        listed: ListedLpi,
        is_listed: bool,
    ) -> Option<usize> {
        let intid = ready.lpi.get();
        let mut used = self.interface.list.iter().take(self.used);
        match used.position(|register| register.virtual_intid() == intid) {
            Some(index) => {
                (is_listed && self.listed[index] == Listed::Lpi(listed)).then_some(index)
            }
            None => (!is_listed && !self.is_full()).then_some(self.used),
        }
    }

    /// Returns `true` if all list registers are in use.
    pub(crate) const fn is_full(&self) -> bool {
        self.used >= self.count
    }

    /// Empties all list registers, and returns how many were in use.
    pub(crate) fn empty(&mut self) -> usize {
        let used = core::mem::take(&mut self.used);
        self.interface.list[..used].fill(ListRegister::new());
        used
    }
}

/// Summary of the interrupts that didn't fit in list registers, as a set of flags.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Unlisted(u8);

impl Unlisted {
    /// A pending interrupt doesn't fit.
    pub(crate) const fn pending(is_unlisted: bool) -> Self {
        Self(is_unlisted as u8)
    }

    /// An active interrupt doesn't fit.
    pub(crate) const fn active(is_unlisted: bool) -> Self {
        Self((is_unlisted as u8) << 1)
    }

    /// A pending interrupt would be signaled once the guest enables the group.
    pub(crate) const fn held_back(group: Group, is_unlisted: bool) -> Self {
        Self((is_unlisted as u8) << (2 + group as usize))
    }

    /// Returns `true` if all of these flags are set.
    pub(crate) const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl BitOr for Unlisted {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Contents of a list register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Listed {
    Nothing,
    Wired(WiredIndex, Filled),
    Lpi(ListedLpi),
}

impl Listed {
    /// Returns `true` for a pending LPI or edge-triggered interrupt, which ends without any other
    /// effect.
    pub(crate) fn is_plain(self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Wired(_, filled) => filled.is_plain(),
            Self::Lpi(_) => true,
        }
    }
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

    /// Removes all interrupts for which `keep` returns `false`.
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
