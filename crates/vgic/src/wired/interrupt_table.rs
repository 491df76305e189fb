//! Words of all wired interrupts, and the set of interrupts that the guest can see.

use super::index::WiredIndex;
use super::interrupt::{Interrupt, InterruptWord};
use super::pes::Pes;
use crate::config::{SecurityView, VgicConfig, WiredIntIds};
use alloc::boxed::Box;
use doorbell_fallible::{OutOfMemory, try_boxed_slice};
use gic_arch::{IntId, IntIdClass, Priority};
use msi_types::{Cpu, Line};

/// A machine's wired interrupts.
pub(super) struct InterruptTable {
    intids: WiredIntIds,
    pub(super) security: SecurityView,
    shared: Box<[Interrupt]>,
    pub(super) pes: Pes,
}

/// The distributor's shared interrupts, or one PE's private interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bank {
    /// The distributor's shared interrupts.
    Shared,
    /// A PE's private interrupts.
    Private(Cpu),
}

impl Bank {
    /// Returns the target that an interrupt in the bank has after reset: `unrouted` for shared
    /// interrupts.
    pub(super) fn target_after_reset(self, unrouted: u16) -> u16 {
        match self {
            Self::Shared => unrouted,
            Self::Private(cpu) => InterruptWord::index_of(cpu),
        }
    }

    /// Returns the vCPU with which to look up the bank's interrupts.
    pub(super) fn owner(self) -> Cpu {
        match self {
            Self::Shared => Cpu::new(0),
            Self::Private(cpu) => cpu,
        }
    }
}

impl InterruptTable {
    pub(super) fn new(config: &VgicConfig) -> Result<Self, OutOfMemory> {
        let intids = config.wired_intids();
        let last = intids.last_shared().and_then(WiredIndex::of).and_then(WiredIndex::shared_index);
        // Registers with one bit per interrupt show 32 interrupts, which may include a gap.
        let shared = 0..last.map_or(0, |last| (last + 1).next_multiple_of(32));
        Ok(Self {
            intids,
            security: config.security,
            shared: try_boxed_slice(shared.map(|_| Interrupt::new(InterruptWord::new())))?,
            pes: Pes::new(config)?,
        })
    }

    /// Returns the number of shared interrupts, including the gaps between them.
    pub(super) fn shared_count(&self) -> usize {
        self.shared.len()
    }

    /// Returns a shared interrupt's word.
    pub(super) fn shared(&self, index: WiredIndex) -> Option<&Interrupt> {
        self.shared.get(index.shared_index()?)
    }

    /// Returns an implemented interrupt's word. For a private interrupt, returns `cpu`'s word.
    pub(super) fn get(&self, cpu: Cpu, index: WiredIndex) -> Option<&Interrupt> {
        match index.shared_index() {
            Some(index) => self.shared.get(index),
            None => self.pes.get(cpu)?.interrupts.get(index.get()),
        }
    }

    /// Returns the words of 32 interrupts, starting with `first`, whose number is a multiple of 32.
    pub(super) fn words(&self, cpu: Cpu, first: IntId) -> Option<&[Interrupt; 32]> {
        let index = WiredIndex::of(first)?;
        let words = match index.shared_index() {
            Some(index) => self.shared.get(index..)?,
            None => self.pes.get(cpu)?.interrupts.get(index.get()..)?,
        };
        words.first_chunk()
    }

    /// Returns the state of the interrupt at `index`, visible to the guest or not.
    pub(super) fn state(&self, cpu: Cpu, index: WiredIndex) -> InterruptWord {
        self.get(cpu, index).map_or(InterruptWord::new(), Interrupt::state)
    }

    /// Returns the index of an interrupt that the machine implements.
    pub(super) fn index(&self, intid: IntId) -> Option<WiredIndex> {
        WiredIndex::of(intid).filter(|_| self.intids.contains(intid))
    }

    /// Returns the vCPU and index to look up a wired input, or `None` if the input doesn't exist.
    pub(super) fn input(&self, line: Line) -> Option<(Cpu, WiredIndex)> {
        let (cpu, intid) = match line {
            Line::Spi(number) => (Cpu::new(0), IntId::new(number)),
            Line::Ppi { cpu, intid } => (cpu, IntId::new(intid)),
        };
        let wired = match line {
            Line::Spi(_) => intid.is_shared(),
            Line::Ppi { .. } => intid.is_private() && intid.class() != IntIdClass::Sgi,
        };
        Some((cpu, self.index(intid).filter(|_| wired)?))
    }

    /// Returns the state of an interrupt that the guest can see, or `None` if the guest cannot see
    /// the interrupt.
    pub(super) fn visible(&self, cpu: Cpu, intid: IntId) -> Option<InterruptWord> {
        let state = self.get(cpu, self.index(intid)?)?.state();
        self.is_visible(state).then_some(state)
    }

    pub(super) fn is_visible(&self, state: InterruptWord) -> bool {
        self.security == SecurityView::Single || state.group1()
    }

    /// Returns the indices of the implemented interrupts in a bank, in ascending order.
    pub(super) fn indices(&self, bank: Bank) -> impl Iterator<Item = WiredIndex> {
        let numbers = match bank {
            Bank::Shared => WiredIndex::COUNT - WiredIndex::SHARED..WiredIndex::COUNT,
            Bank::Private(_) => 0..WiredIndex::PRIVATE,
        };
        numbers.filter_map(WiredIndex::new).filter(|index| self.intids.contains(index.intid()))
    }

    /// Returns a bit for each of 32 interrupts, starting with `first`. The bit is set if the guest
    /// can see the interrupt, and its state has this flag. `first` must be the first interrupt of a
    /// register with one bit per interrupt.
    pub(super) fn bits(&self, cpu: Cpu, first: IntId, flag: InterruptWord) -> u32 {
        let Some(words) = self.words(cpu, first) else { return 0 };
        match self.security {
            SecurityView::Single => collect(words, flag, |_| true),
            SecurityView::NonSecure => collect(words, flag, InterruptWord::group1),
        }
    }
}

/// Collects the flag of each word that `is_visible` admits, eight words at a time.
#[inline]
fn collect(
    words: &[Interrupt; 32],
    flag: InterruptWord,
    is_visible: impl Fn(&InterruptWord) -> bool,
) -> u32 {
    let flag = flag.into_bits();
    let next = |bits: u64, word: &Interrupt| {
        let state = word.state();
        let flags = if is_visible(&state) { state.into_bits() } else { 0 };
        2 * bits + (flags & flag)
    };
    let (eights, _) = words.as_chunks();
    let bits = eights.iter().rev().fold(0, |bits, [a, b, c, d, e, f, g, h]| {
        next(next(next(next(next(next(next(next(bits, h), g), f), e), d), c), b), a)
    });
    u32::try_from(bits >> flag.trailing_zeros()).unwrap_or_default()
}

/// Returns the state of an interrupt after reset: disabled, level-sensitive (SGIs: edge-triggered),
/// Group 0, with the highest priority. With two security states, firmware has already assigned
/// interrupts to the guest: they are in Non-secure Group 1, with the highest priority available to
/// the guest.
pub(super) fn reset_state(
    config: &VgicConfig,
    index: WiredIndex,
    before: InterruptWord,
    target: u16,
) -> InterruptWord {
    let intid = index.intid();
    let state = InterruptWord::new()
        .with_line(before.line())
        .linked_as(before)
        .with_edge(intid.class() == IntIdClass::Sgi)
        .with_target_index(target);
    match config.security {
        SecurityView::Single => state,
        SecurityView::NonSecure if config.secure_interrupts.contains(&intid) => state,
        SecurityView::NonSecure => {
            state.with_group1(true).with_priority_value(Priority::from_non_secure_view(0).get())
        }
    }
}
