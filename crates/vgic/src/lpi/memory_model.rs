//! The steps of injection, acknowledgment and wake-up as separate symbols, for Arm's memory model.
//! The event's entry is at position 0 and has generation 1, and the direct LPI has index 0. Each
//! function calls the function that it is named after.

#![expect(private_interfaces, reason = "the functions are compiled, and never called")]
#![expect(missing_docs, reason = "each function only calls the function that it is named after")]

pub use super::ready_bitmap::memory_model::*;

use super::entry::{Entry, Level, ReadyFor};
use super::entry_table::{EntryIndex, Position};
use super::itt::{EntryRef, Link};
use super::pending_lpis::{self, ListedLpi, Peek, Take};
use super::ready_bitmap::{ReadyBitmap, Visit, Visitor};
use super::shared::Shared;
use crate::wakeup::VcpuWakeup;
use msi_types::Cpu;

const FOUND: EntryRef =
    EntryRef { position: Position::new(0), link: Link::of_block(EntryIndex::new(0), 1) };
const LEVEL: Level = Level::new(0);

/// Returns 0 if the message was dropped, 1 if the LPI became pending, and 2 if it already was.
fn outcome(seen: Option<Entry>) -> u32 {
    seen.map_or(0, |seen| 1 + u32::from(seen.is_pending()))
}

#[inline(never)]
pub fn entry_is_pending(shared: &Shared) -> bool {
    shared.entries.load(FOUND.position).is_pending()
}

/// Loads the position of the redistributors' own LPIs as the last access.
#[inline(never)]
pub fn first_own(shared: &Shared) -> u32 {
    shared.own_position(0).get()
}

#[inline(never)]
pub fn own_is_pending(shared: &Shared) -> bool {
    shared.own(0).is_some_and(|own| own.load(0).is_pending())
}

#[inline(never)]
pub fn shared_leaf_is_empty(shared: &Shared) -> bool {
    leaf_is_empty(&shared.ready[0])
}

#[inline(never)]
pub fn shared_summary_is_empty(shared: &Shared) -> bool {
    summary_is_empty(&shared.ready[0])
}

#[inline(never)]
pub fn shared_top_is_empty(shared: &Shared) -> bool {
    top_is_empty(&shared.ready[0])
}

#[inline(never)]
pub fn shared_bitmap_is_empty(shared: &Shared) -> bool {
    bitmap_is_empty(&shared.ready[0])
}

#[inline(never)]
pub fn set_pending(shared: &Shared) -> u32 {
    outcome(shared.set_pending(FOUND))
}

/// Sets an entry pending, and its ready bit.
#[inline(never)]
pub fn send(shared: &Shared) -> u32 {
    let seen = shared.set_pending(FOUND);
    if let Some(seen) = seen
        && !seen.is_pending()
    {
        shared.set_ready_bit(seen.with_pending(true), FOUND.position);
    }
    outcome(seen)
}

#[inline(never)]
pub fn set_own_pending(shared: &Shared) -> u32 {
    outcome(shared.set_own_pending(0, 0))
}

/// Visits a ready bit that acknowledgment has found. Returns `true` if the LPI was taken.
#[inline(never)]
pub fn take(shared: &Shared) -> bool {
    let bit = ready_bit(&shared.ready[0]);
    let mut take = Take::<true> { shared, vcpu: ReadyFor::new(0) };
    matches!(take.visit(bit, LEVEL, FOUND.position), Visit::Found(_))
}

#[inline(never)]
pub fn take_own(shared: &Shared) -> bool {
    let bit = ready_bit(&shared.ready[0]);
    let position = shared.own_position(0);
    let mut take = Take::<false> { shared, vcpu: ReadyFor::new(0) };
    matches!(take.visit(bit, LEVEL, position), Visit::Found(_))
}

/// Folds the LPI, which the guest has acknowledged, from its list register.
#[inline(never)]
pub fn fold(shared: &Shared) -> bool {
    let listed = ListedLpi { position: FOUND.position, generation: FOUND.generation() };
    pending_lpis::fold(shared, 0, listed, false).is_some()
}

/// Visits a ready bit before the vCPU sleeps. Returns `true` if an LPI is ready.
#[inline(never)]
pub fn peek(shared: &Shared) -> bool {
    let bit = ready_bit(&shared.ready[0]);
    matches!(
        Peek { shared, vcpu: ReadyFor::new(0) }.visit(bit, LEVEL, FOUND.position),
        Visit::Found(_)
    )
}

#[inline(never)]
pub fn kick(wakeup: &VcpuWakeup) {
    wakeup.kick(Cpu::new(0));
}

#[inline(never)]
pub fn needs_kick(wakeup: &VcpuWakeup) -> bool {
    wakeup.words()[0].needs_kick()
}

/// Returns `true` if the vCPU left.
#[inline(never)]
pub fn leave_unless_ready(wakeup: &VcpuWakeup, bitmap: &ReadyBitmap) -> bool {
    wakeup.words()[0].leave_unless(|| !bitmap.is_empty())
}
