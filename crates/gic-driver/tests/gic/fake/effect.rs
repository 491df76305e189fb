//! Effects of ITS commands at redistributors.

use super::memory::Memory;
use super::redistributor::FakeRedistributor;

/// Effect of an ITS command at a redistributor. The effect occurs when a SYNC is executed for the
/// redistributor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Reload(u32),
    ReloadAll,
    Set(u32),
    Clear(u32),
    MoveTo(u32, u64),
    MoveAllTo(u64),
    /// Writes a translation entry: its address and value.
    Map(u64, u64),
}

/// Applies an effect at the redistributor `at`.
pub(crate) fn apply(
    redistributors: &mut [&mut FakeRedistributor],
    memory: &mut Memory,
    at: u64,
    effect: Effect,
) {
    if let Effect::Map(entry, value) = effect {
        return memory.device_write64(entry, value);
    }
    let here = redistributors.iter_mut().find(|rd| rd.target == at).unwrap();
    let moved: Vec<u32> = match effect {
        Effect::Reload(_) if here.ignores_invalidation => return,
        Effect::Reload(lpi) => return here.refill(memory, lpi),
        Effect::ReloadAll => return here.refill_all(memory),
        Effect::Set(lpi) => {
            here.pending.insert(lpi);
            return;
        }
        Effect::Clear(lpi) => {
            here.pending.remove(&lpi);
            return;
        }
        Effect::MoveTo(lpi, _) => here.pending.take(&lpi).into_iter().collect(),
        Effect::Map(..) => unreachable!("handled above"),
        Effect::MoveAllTo(_) => std::mem::take(&mut here.pending).into_iter().collect(),
    };
    if let Effect::MoveTo(_, to) | Effect::MoveAllTo(to) = effect {
        let there = redistributors.iter_mut().find(|rd| rd.target == to).unwrap();
        there.pending.extend(moved);
    }
}
