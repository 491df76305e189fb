//! Views of mappings and pending LPIs, which hold the command lock for a bounded time.

use super::control::Control;
use super::entry::Entry;
use super::entry_allocator::Owner;
use super::itt::Probe;
use super::mapping::{ItsIndex, MappedDevice};
use super::redistributor_lpis::{LpiBlock, RedistributorLpis};
use super::shared::Location;
use super::{ENTRIES_PER_PIECE, LpiCore};
use crate::monitor::view::LpiView;
use doorbell_fallible::OutOfMemory;
use msi_types::Cpu;

impl LpiCore {
    /// Visits the LPIs that are pending at a redistributor independently of any event, in INTID
    /// order. Lock-free.
    pub(crate) fn view_own(
        &self,
        cpu: Cpu,
        mut each: impl FnMut(LpiView) -> Result<(), OutOfMemory>,
    ) -> Result<(), OutOfMemory> {
        let own = self.shared.own(cpu.get());
        let blocks = own.into_iter().flat_map(RedistributorLpis::blocks);
        blocks.flat_map(LpiBlock::indices).try_for_each(|index| {
            let entry = self.shared.load(Location::Own { vcpu: cpu.get(), index });
            if entry.is_pending_or_held() { each(view(entry)) } else { Ok(()) }
        })
    }

    /// Visits a device's mapped events in EventID order, each with its collection. Holds the
    /// command lock for a bounded number of events at a time, so a mapping that changes
    /// concurrently may be missed.
    pub(crate) fn view_events(
        &self,
        its: ItsIndex,
        device: u32,
        mut each: impl FnMut(u32, u16, LpiView) -> Result<(), OutOfMemory>,
    ) -> Result<(), OutOfMemory> {
        let mut next = Some(0);
        while let Some(from) = next {
            next = self
                .with_kicks_deferred(|control| control.view_events(its, device, from, &mut each))?;
        }
        Ok(())
    }
}

impl Control {
    /// Returns an ITS's first mapped device whose DeviceID is not less than `first`.
    pub(crate) fn device_from(&self, its: ItsIndex, first: u32) -> Option<(u32, MappedDevice)> {
        self.translators.get(its)?.device_from(first)
    }

    /// Visits a bounded number of events, starting at `from`. Returns the next event to visit, or
    /// `None` after the last one.
    fn view_events(
        &self,
        its: ItsIndex,
        device: u32,
        from: u32,
        each: &mut impl FnMut(u32, u16, LpiView) -> Result<(), OutOfMemory>,
    ) -> Result<Option<u32>, OutOfMemory> {
        let Some(dte) = self.translators.get(its).and_then(|its| its.dte(device)) else {
            return Ok(None);
        };
        let mut at = from;
        for _ in 0..ENTRIES_PER_PIECE {
            let next = match self.shared.nodes.probe(dte, at) {
                Probe::End => return Ok(None),
                Probe::NothingBefore(next) => Some(next),
                Probe::Entry(index) => {
                    if let Owner::Event { collection, .. } = self.device_entries.owner(index) {
                        each(at, collection, view(self.shared.load(Location::Event(index))))?;
                    }
                    at.checked_add(1)
                }
            };
            let Some(next) = next else { return Ok(None) };
            at = next;
        }
        Ok(Some(at))
    }
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
