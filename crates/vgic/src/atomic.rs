//! The atomics under what threads share: LPI entries and ready bits, wired interrupts and their
//! lists, wake-up state.
//!
//! Model checks compile the same sources against a scheduler's atomics in place of these. The
//! scheduler tries interleavings and reorders nothing. That is enough, as every access is
//! sequentially consistent: a program whose atomics are all so, and that has no data race, does
//! nothing but interleave them (the C11 memory model's guarantee), on weakly ordered CPUs, too. A
//! house lint refuses other orderings in this crate. On x86 they would cost the same: the hot
//! paths' writes are read-modify-writes. On Arm, loads become `LDAR` and read-modify-writes `CASAL`
//! or `LDSETAL`.
//!
//! Pages of tables come by `OnceBox`, which publishes them with release and acquire. A page is
//! there before the word, entry or hint that leads to it is written, and a reader follows that word
//! to the page.

pub(crate) use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Own LPIs of a redistributor that share a page, as a power of two. In model checks there are
/// fewer: each access is a step there.
pub(crate) const OWN_PAGE_BITS: u32 = 12;

/// Does the model check leave the step with this number out?
#[inline]
pub(crate) const fn is_left_out(_step: u8) -> bool {
    false
}
