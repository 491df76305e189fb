//! Views of mappings and pending LPIs, which hold the command lock for a bounded time.

use super::command_state::CommandState;
use super::entry::Entry;
use super::entry_allocator::Owner;
use super::itt::Probe;
use super::mapping::ItsIndex;
use super::redistributor_lpis::{LpiBlock, RedistributorLpis};
use super::shared::Location;
use super::{ENTRIES_PER_PIECE, LpiCore};
use crate::monitor::view::LpiView;
use doorbell_fallible::OutOfMemory;
use msi_types::Cpu;

/// Visits the LPIs that are pending at a redistributor independently of any event, in INTID
/// order. Lock-free.
pub(crate) fn view_own(
    core: &LpiCore,
    cpu: Cpu,
    mut each: impl FnMut(LpiView) -> Result<(), OutOfMemory>,
) -> Result<(), OutOfMemory> {
    let own = core.shared.own(cpu.get());
    let blocks = own.into_iter().flat_map(RedistributorLpis::blocks);
    blocks.flat_map(LpiBlock::indices).try_for_each(|index| {
        let entry = core.shared.load(Location::Own { vcpu: cpu.get(), index });
        if entry.is_pending_or_held() { each(view(entry)) } else { Ok(()) }
    })
}

/// Visits a device's mapped events in EventID order, each with its collection. Holds the
/// command lock for a bounded number of events at a time, so a mapping that changes
/// concurrently may be missed.
pub(crate) fn view_events(
    core: &LpiCore,
    its: ItsIndex,
    device: u32,
    mut each: impl FnMut(u32, u16, LpiView) -> Result<(), OutOfMemory>,
) -> Result<(), OutOfMemory> {
    let mut next = Some(0);
    while let Some(from) = next {
        next =
            core.with_kicks_deferred(|control| view_some(control, its, device, from, &mut each))?;
    }
    Ok(())
}

/// Visits a bounded number of events, starting at `from`. Returns the next event to visit, or
/// `None` after the last one.
fn view_some(
    state: &CommandState,
    its: ItsIndex,
    device: u32,
    from: u32,
    each: &mut impl FnMut(u32, u16, LpiView) -> Result<(), OutOfMemory>,
) -> Result<Option<u32>, OutOfMemory> {
    let Some(dte) = state.translators.get(its).and_then(|its| its.dte(device)) else {
        return Ok(None);
    };
    let mut at = from;
    for _ in 0..ENTRIES_PER_PIECE {
        let next = match state.shared.nodes.probe(dte, at) {
            Probe::End => return Ok(None),
            Probe::NothingBefore(next) => Some(next),
            Probe::Entry(index) => {
                if let Owner::Event { collection, .. } = state.device_entries.owner(index) {
                    each(at, collection, view(state.shared.load(Location::Event(index))))?;
                }
                at.checked_add(1)
            }
        };
        let Some(next) = next else { return Ok(None) };
        at = next;
    }
    Ok(Some(at))
}

fn view(entry: Entry) -> LpiView {
    LpiView {
        intid: entry.lpi().intid(),
        enabled: entry.is_enabled(),
        pending: entry.is_pending_or_held(),
        direct: false,
        listed: entry.is_listed(),
        priority: entry.level().configured().get(),
        target: Cpu::new(entry.target()),
    }
}
