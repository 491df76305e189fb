//! The PEs' private parts, and 1-of-N distribution (IHI 0069 §2.3.2), which chooses a PE for an SPI
//! that any participating PE may take.
//!
//! We make the choice when the interrupt becomes pending, and keep it in the interrupt's word. A PE
//! that stops participating releases the interrupts that were assigned to it but that it has not
//! acknowledged; a PE that starts participating takes over the pending interrupts without a PE.
//! Choice and participation follow the store-buffering pattern: the chooser writes the word and
//! then reads the participation again, while the PE writes its participation and then reads the
//! words.

use super::candidates::Candidates;
use super::index::WiredIndex;
use super::interrupt::{Interrupt, InterruptWord};
use crate::config::VgicConfig;
use crate::sync::published::Published;
use crate::sync::{AtomicU32, Ordering::SeqCst};
use crate::wakeup::Awaited;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_arc};
use gic_arch::Affinity;
use msi_types::Cpu;

/// The private part of a PE: its private interrupts, its candidates and its participation. Each
/// part is in an `Arc`, whose rarely written reference counts separate it from the previous part's
/// cache lines.
///
#[repr(align(64))]
pub(crate) struct Private {
    pub(super) affinity: Affinity,
    pub(crate) interrupts: [Interrupt; WiredIndex::PRIVATE],
    pub(crate) candidates: Candidates,
    /// Flags that determine whether this PE receives interrupts in general, and 1-of-N interrupts
    /// in particular: see [`participation`].
    pub(crate) participation: AtomicU32,
    /// Recalls caused by redistributor register writes, except recalls for LPIs.
    pub(crate) awaited: Awaited,
    pub(crate) interface: PublishedInterface,
}

/// Words in which a vCPU publishes the state of its CPU interface for explanations. Only the vCPU's
/// thread writes the words, so they have their own cache line, which injectors do not access.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct PublishedInterface {
    /// Priority mask, groups, binary points and modes.
    pub(crate) settings: Published,
    /// Highest active priority of each group, and the number of acknowledgments.
    pub(crate) activity: Published,
}

/// Bits of [`Private::participation`].
pub(crate) mod participation {
    /// `GICR_WAKER.ProcessorSleep` is clear.
    pub(crate) const AWAKE: u32 = 1 << 0;
    /// The CPU interface has enabled the group (one bit per group).
    pub(crate) const GROUP: [u32; 2] = [1 << 1, 1 << 2];
    /// `GICR_CTLR.DPG0`, `DPG1NS`: the PE doesn't accept 1-of-N interrupts in the group (one bit
    /// per group).
    pub(crate) const DECLINES: [u32; 2] = [1 << 3, 1 << 4];
    /// `GICR_CTLR.DPG1S`, which reads back as written but has no effect.
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
            interface: PublishedInterface::default(),
        }
    }

    /// Returns `true` if this PE accepts 1-of-N interrupts in the group with this index.
    fn participates(&self, group: usize) -> bool {
        let bits = self.participation.load(SeqCst);
        let wanted = participation::AWAKE | participation::GROUP[group];
        bits & wanted == wanted && bits & participation::DECLINES[group] == 0
    }

    /// Returns `true` if the PE's redistributor is awake.
    #[inline]
    pub(crate) fn is_awake(&self) -> bool {
        self.participation.load(SeqCst) & participation::AWAKE != 0
    }

    /// Sets and clears bits of [`participation`]. Returns `true` if any bit changed.
    pub(super) fn participate(&self, set: u32, clear: u32) -> bool {
        let change = |bits| Some((bits & !clear) | set).filter(|new| *new != bits);
        change(self.participation.load(SeqCst)).is_some()
            && self.participation.fetch_update(SeqCst, SeqCst, change).is_ok()
    }
}

/// The PEs, indexed by vCPU. Each vCPU also holds a reference to its own part.
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

    /// Returns the vCPU's private part, or `None` if the machine doesn't have that vCPU.
    #[inline]
    pub(super) fn get(&self, cpu: Cpu) -> Option<&Private> {
        self.0.get(cpu.index()).map(|private| &**private)
    }

    pub(super) fn all(&self) -> &[Arc<Private>] {
        &self.0
    }

    /// Returns `new`, with a PE chosen as its target if it is a 1-of-N interrupt that becomes
    /// pending or is pending without a PE.
    #[inline]
    pub(super) fn aim(&self, old: InterruptWord, new: InterruptWord) -> InterruptWord {
        if new.any() { self.aim_any(old, new) } else { new }
    }

    /// Chooses a PE like [`aim`](Self::aim), for a 1-of-N interrupt.
    fn aim_any(&self, old: InterruptWord, new: InterruptWord) -> InterruptWord {
        let becomes = new.pending() && !old.pending();
        let homeless = new.pending() && new.target().is_none();
        if !new.active() && (becomes || homeless) {
            new.with_target_index(self.choose(new))
        } else {
            new
        }
    }

    /// Chooses the next PE, round-robin, that participates in the interrupt's group.
    pub(super) fn choose(&self, state: InterruptWord) -> u16 {
        let group = state.group() as usize;
        let count = self.0.len();
        let start = state.target().map_or(0, |last| last.index() + 1);
        (0..count)
            .map(|step| (start + step) % count.max(1))
            .find(|index| self.0.get(*index).is_some_and(|private| private.participates(group)))
            .and_then(|index| u16::try_from(index).ok())
            .unwrap_or(InterruptWord::NOWHERE)
    }

    /// Returns `true` if the PE participates in the group of `state`.
    pub(super) fn participates(&self, cpu: Cpu, state: InterruptWord) -> bool {
        self.get(cpu).is_some_and(|private| private.participates(state.group() as usize))
    }

    /// Returns `true` for a 1-of-N interrupt that isn't active, and is pending without a PE, or at
    /// a PE that doesn't participate.
    pub(super) fn is_misplaced(&self, state: InterruptWord) -> bool {
        let at_participant = state.target().is_some_and(|target| self.participates(target, state));
        state.any() && state.pending() && !state.active() && !at_participant
    }
}
