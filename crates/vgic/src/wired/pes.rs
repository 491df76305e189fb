//! The PEs' own parts, and 1-of-N interrupts (IHI 0069 §2.3.2): the choice of a PE for an SPI that
//! any participating PE may take.
//!
//! The choice is made when the interrupt becomes pending and is kept in its word. A PE that stops
//! participating gives up the interrupts that were chosen for it but not yet acknowledged; a PE
//! that begins takes the pending interrupts without a PE. Choice and participation are store
//! buffering: the chooser writes the word and reads the participation again, the PE writes its
//! participation and reads the words.

use super::candidates::Candidates;
use super::index::WiredIndex;
use super::interrupt::{Group, Interrupt, InterruptWord};
use crate::config::VgicConfig;
use crate::sync::{AtomicU32, Ordering::SeqCst};
use crate::wakeup::Awaited;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_arc};
use gic_arch::Affinity;
use msi_types::Cpu;

/// One PE's part. It is shared by a counted reference. The counts, which are seldom written, keep
/// it from the cache lines of the part before it.
#[repr(align(64))]
pub(crate) struct Private {
    pub(super) affinity: Affinity,
    pub(crate) interrupts: [Interrupt; WiredIndex::PRIVATE],
    pub(crate) candidates: Candidates,
    /// Decides whether 1-of-N interrupts, or any at all, go to this PE: [`participation`].
    pub(crate) participation: AtomicU32,
    /// By writes to the redistributor's registers that concern no LPIs.
    pub(crate) awaited: Awaited,
}

/// Bits of [`Private::participation`].
pub(crate) mod participation {
    /// `GICR_WAKER.ProcessorSleep` is clear.
    pub(crate) const AWAKE: u32 = 1 << 0;
    /// The CPU interface takes the group: Group 0, Group 1.
    pub(crate) const GROUP: [u32; 2] = [1 << 1, 1 << 2];
    /// `GICR_CTLR.DPG0`, `DPG1NS`: the PE takes no 1-of-N interrupts of the group.
    pub(crate) const DECLINES: [u32; 2] = [1 << 3, 1 << 4];
    /// `GICR_CTLR.DPG1S`: kept for reading back only.
    pub(crate) const DECLINES_SECURE: u32 = 1 << 5;
}

impl Private {
    fn new(affinity: Affinity) -> Self {
        Self {
            affinity,
            interrupts: core::array::from_fn(|_| Interrupt::new(InterruptWord::new())),
            candidates: Candidates::new(),
            participation: AtomicU32::new(0),
            awaited: Awaited::new(),
        }
    }

    /// Does this PE take 1-of-N interrupts of the group with this index?
    fn participates(&self, group: usize) -> bool {
        let bits = self.participation.load(SeqCst);
        let wanted = participation::AWAKE | participation::GROUP[group];
        bits & wanted == wanted && bits & participation::DECLINES[group] == 0
    }

    /// Sets and clears bits of [`participation`]. Returns true if any changed.
    pub(super) fn participate(&self, set: u32, clear: u32) -> bool {
        let change = |bits| Some((bits & !clear) | set).filter(|new| *new != bits);
        change(self.participation.load(SeqCst)).is_some()
            && self.participation.fetch_update(SeqCst, SeqCst, change).is_ok()
    }
}

/// The PEs by vCPU. Each vCPU has its own part at hand, too.
pub(super) struct Pes(Box<[Arc<Private>]>);

impl Pes {
    pub(super) fn new(config: &VgicConfig) -> Result<Self, OutOfMemory> {
        let mut all = Vec::new();
        all.try_reserve_exact(config.cpus.len())?;
        for of in &config.cpus {
            all.push(try_arc(Private::new(of.affinity))?);
        }
        Ok(Self(all.into_boxed_slice()))
    }

    /// The vCPU's part; `None` for a vCPU that the machine does not have.
    #[inline]
    pub(super) fn get(&self, cpu: Cpu) -> Option<&Private> {
        self.0.get(cpu.index()).map(|private| &**private)
    }

    pub(super) fn all(&self) -> &[Arc<Private>] {
        &self.0
    }

    /// `new`, aimed at a PE: where a 1-of-N interrupt becomes pending, or is pending without a PE,
    /// one is chosen.
    pub(super) fn aim(&self, old: InterruptWord, new: InterruptWord) -> InterruptWord {
        let becomes = new.pending() && !old.pending();
        let homeless = new.pending() && new.target().is_none();
        if new.any() && !new.active() && (becomes || homeless) {
            new.with_target_index(self.choose(new))
        } else {
            new
        }
    }

    /// The next PE after the last one that participates in the interrupt's group.
    pub(super) fn choose(&self, state: InterruptWord) -> u16 {
        let group = Group::of(state).index();
        let count = self.0.len();
        let start = state.target().map_or(0, |last| last.index() + 1);
        (0..count)
            .map(|step| (start + step) % count.max(1))
            .find(|index| self.0.get(*index).is_some_and(|private| private.participates(group)))
            .and_then(|index| u16::try_from(index).ok())
            .unwrap_or(InterruptWord::NOWHERE)
    }

    /// Pending, for any PE, and not at one that takes it.
    pub(super) fn is_misplaced(&self, state: InterruptWord) -> bool {
        let at_participant = state
            .target()
            .and_then(|target| self.get(target))
            .is_some_and(|private| private.participates(Group::of(state).index()));
        state.any() && state.pending() && !state.active() && !at_participant
    }
}
