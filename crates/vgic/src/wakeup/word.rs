//! A vCPU's wake-up word, which implements the vCPU's side of the wake-up protocol.

use crate::sync::published::Published;
use crate::sync::{AtomicU64, Ordering::SeqCst};

/// Bits of a [`WakeupWord`].
mod state {
    /// The vCPU is in WFI or in guest mode, or has exited the guest without clearing the flag (see
    /// the module `wakeup`).
    pub(super) const NEEDS_KICK: u64 = 1 << 0;
    /// The vCPU has interrupts in list registers.
    pub(super) const FILLED: u64 = 1 << 1;
    /// The vCPU's last guest entry didn't take any interrupts, and its CPU interface hasn't changed
    /// since.
    pub(super) const IDLE: u64 = 1 << 2;
    /// Position of the recall number, which identifies the first recall since the last guest entry,
    /// or is 0 if there was none.
    pub(super) const RECALL_SHIFT: u32 = 3;
}

/// One vCPU's wake-up state. The vCPU's thread owns the flags. Other threads clear `NEEDS_KICK` to
/// kick the vCPU, and recall its list registers.
///
/// Each word has its own cache line, so that injectors for different vCPUs don't contend. The
/// `Arc`'s reference counts are on the preceding line, but they are rarely written.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct WakeupWord {
    word: AtomicU64,
    /// Number of kicks sent.
    kicks: Published,
    /// Value of `kicks` when the vCPU last returned from the guest or from WFI.
    heard: Published,
}

impl WakeupWord {
    pub(crate) const fn new() -> Self {
        let [kicks, heard] = [Published::new(0), Published::new(0)];
        Self { word: AtomicU64::new(0), kicks, heard }
    }

    #[inline]
    pub(crate) fn needs_kick(&self) -> bool {
        self.word.load(SeqCst) & state::NEEDS_KICK != 0
    }

    /// Clears `NEEDS_KICK`. Returns `true` if the flag was set.
    pub(super) fn take_kick(&self) -> bool {
        self.word.fetch_and(!state::NEEDS_KICK, SeqCst) & state::NEEDS_KICK != 0
    }

    /// Records that the vCPU is about to leave the model, so that it must be kicked from now on.
    /// The vCPU must check for interrupts afterwards.
    pub(crate) fn leave(&self) {
        self.word.fetch_or(state::NEEDS_KICK, SeqCst);
    }

    /// Lets the vCPU leave, unless `finds` then returns `true` because an interrupt or work is
    /// waiting. Returns `true` if the vCPU left.
    #[inline]
    pub(crate) fn leave_unless(&self, finds: impl FnOnce() -> bool) -> bool {
        self.leave();
        let stays = finds();
        if stays {
            self.returned();
        }
        !stays
    }

    /// Records that the vCPU has returned or didn't leave, and will check for interrupts itself.
    /// Only the vCPU sets the flag, so a vCPU that finds its flag clear has been kicked.
    pub(crate) fn returned(&self) {
        if self.needs_kick() {
            self.take_kick();
        }
        self.hear_kicks();
    }

    /// Counts a kick that is about to be sent.
    pub(super) fn count_kick(&self) {
        self.kicks.count();
    }

    /// Records that the vCPU has responded to all kicks counted so far. Writes only if a kick was
    /// counted since the last call.
    #[inline]
    fn hear_kicks(&self) {
        let kicks = self.kicks.get();
        if self.heard.get() != kicks {
            self.heard.set(kicks);
        }
    }

    /// Returns `true` if the vCPU was kicked but has not returned yet.
    pub(crate) fn is_kicked(&self) -> bool {
        !self.needs_kick() && self.heard.get() != self.kicks.get()
    }

    /// Records that the vCPU [leaves](Self::leave) and is about to fill its list registers, which
    /// must be empty.
    pub(crate) fn enter(&self) {
        self.word.swap(state::NEEDS_KICK | state::FILLED, SeqCst);
    }

    /// Records that the vCPU [entered](Self::enter) without taking interrupts: its list registers
    /// cannot be recalled, and it is [idle](Self::is_idle). Returns `false` if the vCPU was kicked
    /// or recalled since it entered.
    pub(crate) fn took_nothing(&self) -> bool {
        let (filled, idle) = (state::NEEDS_KICK | state::FILLED, state::NEEDS_KICK | state::IDLE);
        self.word.compare_exchange(filled, idle, SeqCst, SeqCst).is_ok()
    }

    /// Records that the vCPU, which is in guest mode, is about to fill another list register.
    /// Returns `false` if the vCPU was kicked or recalled since it entered, and must therefore look
    /// for interrupts first.
    #[inline]
    pub(crate) fn fills_another(&self) -> bool {
        let (filled, idle) = (state::NEEDS_KICK | state::FILLED, state::NEEDS_KICK | state::IDLE);
        self.word.load(SeqCst) == filled
            || self.word.compare_exchange(idle, filled, SeqCst, SeqCst).is_ok()
    }

    /// Records that the vCPU leaves again, with the list registers that it filled. Returns `false`
    /// if they were recalled, in which case they must be folded first.
    #[inline]
    pub(crate) fn lists_again(&self) -> bool {
        let (filled, left) = (state::FILLED, state::NEEDS_KICK | state::FILLED);
        self.hear_kicks();
        match self.word.compare_exchange(filled, left, SeqCst, SeqCst) {
            Ok(_) => true,
            Err(seen) => seen == left,
        }
    }

    /// Returns `true` if the last entry took no interrupts and the CPU interface has not changed
    /// since. If no interrupt has become pending, the register values loaded for the last entry are
    /// also correct for the next entry. `NEEDS_KICK` is still set unless the vCPU has
    /// [returned](Self::returned) or was kicked.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.word.load(SeqCst) & state::IDLE != 0
    }

    /// Records that the vCPU has [returned](Self::returned) and is no longer idle, because its CPU
    /// interface may change.
    pub(crate) fn end_idle(&self) {
        if self.is_idle() {
            self.word.fetch_and(!(state::IDLE | state::NEEDS_KICK), SeqCst);
        }
    }

    /// Returns `true` if the vCPU is idle and its `NEEDS_KICK` is still set, in which case no
    /// interrupt has arrived for it.
    #[inline]
    pub(super) fn stays_left(&self) -> bool {
        self.word.load(SeqCst) == state::NEEDS_KICK | state::IDLE
    }

    /// Recalls the list registers under this recall number, unless an earlier recall is still in
    /// progress. Returns `None` if the list registers are empty, and `Some(false)` if they were
    /// already recalled.
    pub(super) fn recall(&self, number: u64) -> Option<bool> {
        let mut seen = self.word.load(SeqCst);
        while seen & state::FILLED != 0 && seen >> state::RECALL_SHIFT == 0 {
            let recalled = seen | number << state::RECALL_SHIFT;
            match self.word.compare_exchange(seen, recalled, SeqCst, SeqCst) {
                Ok(_) => return Some(true),
                Err(now) => seen = now,
            }
        }
        (seen & state::FILLED != 0).then_some(false)
    }

    /// Returns the number of the recall for which the vCPU has not yet folded its list registers,
    /// or 0.
    pub(super) fn recalled(&self) -> u64 {
        self.word.load(SeqCst) >> state::RECALL_SHIFT
    }

    /// Records that the vCPU has returned and its list registers are empty. Returns `true` if the
    /// vCPU had been recalled.
    pub(super) fn folded(&self) -> bool {
        self.fold_to(0)
    }

    /// Records the same of a vCPU that [enters](Self::enter) again immediately.
    pub(super) fn folded_to_enter(&self) -> bool {
        self.fold_to(state::NEEDS_KICK | state::FILLED)
    }

    #[inline]
    fn fold_to(&self, next: u64) -> bool {
        self.hear_kicks();
        self.word.swap(next, SeqCst) >> state::RECALL_SHIFT != 0
    }
}
