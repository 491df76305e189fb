//! The wake-up word of one vCPU: its own half of the protocol.

use crate::sync::{AtomicU64, Ordering::SeqCst};

/// Bits of a [`WakeupWord`].
mod state {
    /// The vCPU is in WFI or in guest mode, or was so and stays left.
    pub(super) const NEEDS_KICK: u64 = 1 << 0;
    /// It has interrupts in list registers.
    pub(super) const FILLED: u64 = 1 << 1;
    /// Its last entry took nothing, and its CPU interface has not changed since.
    pub(super) const IDLE: u64 = 1 << 2;
    /// From this bit on: the number of the recall that first said that one of these changed, or 0.
    pub(super) const RECALL_SHIFT: u32 = 3;
}

/// The wake-up state of one vCPU. Its thread owns the flags; others take its kick, and recall it.
///
/// On a cache line of its own: injectors of distinct vCPUs must not meet. It is shared by a counted
/// reference. The counts, which are seldom written, are on the line before.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct WakeupWord(AtomicU64);

impl WakeupWord {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub(super) fn needs_kick(&self) -> bool {
        self.0.load(SeqCst) & state::NEEDS_KICK != 0
    }

    /// The vCPU needs no kick any more. Did it?
    pub(super) fn take_kick(&self) -> bool {
        self.0.fetch_and(!state::NEEDS_KICK, SeqCst) & state::NEEDS_KICK != 0
    }

    /// The vCPU is about to leave the model: from now on it must be kicked. It looks for
    /// interrupts afterwards.
    pub(crate) fn leave(&self) {
        self.0.fetch_or(state::NEEDS_KICK, SeqCst);
    }

    /// The vCPU leaves, unless it `finds` something to do afterwards. Did it leave?
    pub(crate) fn leave_unless(&self, finds: impl FnOnce() -> bool) -> bool {
        self.leave();
        let stays = finds();
        if stays {
            self.returned();
        }
        !stays
    }

    /// The vCPU is back, or did not leave: it will look by itself. It alone sets the flag, so it
    /// finds it clear only after a kick.
    pub(crate) fn returned(&self) {
        if self.needs_kick() {
            self.take_kick();
        }
    }

    /// The vCPU, whose list registers are empty, [leaves](Self::leave) to take interrupts into
    /// them.
    pub(crate) fn enter(&self) {
        self.0.swap(state::NEEDS_KICK | state::FILLED, SeqCst);
    }

    /// The vCPU [entered](Self::enter) and took nothing: there is nothing to recall, and the vCPU
    /// is [idle](Self::is_idle). `false`: it was kicked or recalled meanwhile.
    pub(crate) fn took_nothing(&self) -> bool {
        let (filled, idle) = (state::NEEDS_KICK | state::FILLED, state::NEEDS_KICK | state::IDLE);
        self.0.compare_exchange(filled, idle, SeqCst, SeqCst).is_ok()
    }

    /// Has the last entry taken nothing, and has the CPU interface not changed since? If nothing
    /// has become pending, what was loaded then is right for the next entry. The vCPU has stayed
    /// left unless it [returned](Self::returned) or was kicked.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.0.load(SeqCst) & state::IDLE != 0
    }

    /// The vCPU is idle no more, and [back](Self::returned): its CPU interface may change.
    pub(crate) fn end_idle(&self) {
        if self.is_idle() {
            self.0.fetch_and(!(state::IDLE | state::NEEDS_KICK), SeqCst);
        }
    }

    /// Is the vCPU idle, and has it stayed left? Nothing has arrived for it then.
    #[inline]
    pub(super) fn stays_left(&self) -> bool {
        self.0.load(SeqCst) == state::NEEDS_KICK | state::IDLE
    }

    /// Recalls the list registers by this number, unless they are recalled already. `None`: they
    /// are empty. `Some(false)`: they were recalled before.
    pub(super) fn recall(&self, number: u64) -> Option<bool> {
        let mut seen = self.0.load(SeqCst);
        while seen & state::FILLED != 0 && seen >> state::RECALL_SHIFT == 0 {
            let recalled = seen | number << state::RECALL_SHIFT;
            match self.0.compare_exchange(seen, recalled, SeqCst, SeqCst) {
                Ok(_) => return Some(true),
                Err(now) => seen = now,
            }
        }
        (seen & state::FILLED != 0).then_some(false)
    }

    /// The number of the recall that the vCPU has not folded for, or 0.
    pub(super) fn recalled(&self) -> u64 {
        self.0.load(SeqCst) >> state::RECALL_SHIFT
    }

    /// The vCPU is back, and has nothing in list registers any more. Was it recalled?
    pub(super) fn folded(&self) -> bool {
        self.0.swap(0, SeqCst) >> state::RECALL_SHIFT != 0
    }
}
