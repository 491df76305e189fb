//! MSI parent implementation for a bus's devices behind an ITS: maps requesters to DeviceIDs, and
//! checks that an endpoint can store its messages. Also explains how far a message gets through the
//! ITS.

use super::mapping::EventRequest;
use super::routes::{EventRoute, cpu_of};
use super::{Its, ItsError, TimedOut};
use crate::mmio::MmioExt;
use crate::platform::{GicPlatform, wait_until};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use gic_arch::{Lpi, gits};
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{
    Attachment, BlockRequest, Cpu, DeviceId, DoorbellPage, Granule, HwIrq, HwIrqBlock,
    IsolatingMechanism, Isolation, Move, MoveOutcome, MsiError, MsiMessage, MsiParent, NotIsolated,
    Pending, RequesterId, Tier,
};

/// Number of events reserved for a DeviceID that several requesters may share. A bus behind a
/// conventional PCI bridge has up to 32 devices, and MSI up to 32 vectors each.
const SHARED_ROOM: u32 = 32 * 32;

/// MSI parent for a bus or platform device. Several parents can share an [`Its`].
#[derive(Debug)]
pub struct ItsMsiParent<P: GicPlatform> {
    its: Arc<Its<P>>,
    map: IdMap,
}

impl<P: GicPlatform> ItsMsiParent<P> {
    /// Creates the parent for a bus. `map` maps the bus's requesters to DeviceIDs.
    pub fn new(its: Arc<Its<P>>, map: IdMap) -> Self {
        Self { its, map }
    }

    /// Returns the ITS.
    pub fn its(&self) -> &Arc<Its<P>> {
        &self.its
    }

    /// Returns the bus's mapping of requesters to DeviceIDs.
    pub fn map(&self) -> &IdMap {
        &self.map
    }

    fn message_of(&self, hwirq: HwIrq) -> Result<MsiMessage, MsiError> {
        self.its.message(lpi(hwirq)?).ok_or(MsiError::UnknownVector(hwirq))
    }

    /// Runs an operation and records its failure, for callers that can't return an error.
    fn or_note(&self, hwirq: HwIrq, operation: impl FnOnce(Lpi) -> Result<(), ItsError>) {
        if let Ok(lpi) = lpi(hwirq)
            && let Err(error) = operation(lpi)
        {
            self.its.note(error);
        }
    }
}

impl<P: GicPlatform> MsiParent for ItsMsiParent<P> {
    fn isolation(&self, of: RequesterId) -> Isolation {
        match self.map.device(of) {
            Some(_) if self.its.doorbell_window.is_some() => Isolation::NotIsolated(
                NotIsolated::SharedDoorbell("the window in front of the ITS (pre-its)"),
            ),
            Some(_) => Isolation::Isolated(IsolatingMechanism::Its),
            None => Isolation::NotIsolated(NotIsolated::NoController),
        }
    }

    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        visit(&Tier::of_controller("its", core::iter::once(self.its.doorbell())));
    }

    /// `GITS_TRANSLATER` is alone in its 64 KiB frame (IHI 0069 §12.19).
    fn doorbell_page(&self, _granule: Granule) -> DoorbellPage {
        DoorbellPage::Alone
    }

    fn attach(&self, device: RequesterId, max: u32) -> Result<Attachment, MsiError> {
        let id = self.map.device(device).ok_or(MsiError::NoRoute(device))?;
        let room = if self.map.is_shared(id) { max.max(SHARED_ROOM) } else { max };
        let attachment = self.its.attach_shared(id, max, room)?;
        Ok(Attachment::new(device, attachment.cookie()))
    }

    fn detach(&self, device: Attachment) {
        self.its.detach(device);
    }

    fn release(&self, device: Attachment, blocks: &mut dyn Iterator<Item = HwIrqBlock>) {
        self.its.release(device, blocks);
    }

    fn allocate(
        &self,
        device: &Attachment,
        request: &BlockRequest,
    ) -> Result<HwIrqBlock, MsiError> {
        let BlockRequest { count, shape, fit, cpu, initially, .. } = *request;
        // Check the doorbell's address before allocating resources.
        fit.check(MsiMessage { address: self.its.doorbell(), data: 0 })?;
        let block = self.its.map_events(
            device,
            EventRequest::new(count, cpu).with_shape(shape).with_initially(initially),
        )?;
        let last = block.nth(count.get() - 1);
        match last.and_then(|last| self.message_of(last)).and_then(|message| fit.check(message)) {
            Ok(()) => Ok(block),
            Err(error) => {
                self.its.unmap_events(device, block);
                Err(error)
            }
        }
    }

    fn free(&self, device: &Attachment, block: HwIrqBlock) {
        self.its.unmap_events(device, block);
    }

    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        self.message_of(block.nth(index)?)
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let hwirq = block.nth(index)?;
        let from = self.its.move_event(lpi(hwirq)?, to)?;
        // The message doesn't encode a CPU, so each member of an aligned group can be moved
        // separately.
        Ok(Move { first: hwirq, count: core::num::NonZeroU16::MIN, message: None, from, to })
    }

    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        if outcome == MoveOutcome::RolledBack {
            self.its.move_event(lpi(moved.first)?, moved.from)?;
        }
        Ok(())
    }

    fn mask(&self, hwirq: HwIrq) {
        self.or_note(hwirq, |lpi| self.its.mask(lpi));
    }

    fn unmask(&self, hwirq: HwIrq) {
        self.or_note(hwirq, |lpi| self.its.unmask(lpi));
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        self.or_note(hwirq, |lpi| self.its.set_pending(lpi, pending));
    }

    fn explain(&self, hwirq: HwIrq, requester: RequesterId) -> Explanation {
        let unknown = Explanation::stopped(Obstacle::NoSuchInterrupt { interrupt: hwirq });
        lpi(hwirq).map_or(unknown, |lpi| explain(&self.its, lpi, self.map.device(requester)))
    }

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        let base = self.its.base();
        match lpi(hwirq).ok().and_then(|lpi| self.its.event_of(lpi)) {
            Some((device, event, cpu)) => {
                writeln!(
                    out,
                    "its@{base:x}: DeviceID {device}, EventID {event} to LPI {hwirq} at CPU {cpu}"
                )
            }
            None => writeln!(out, "its@{base:x}: LPI {hwirq} is not mapped"),
        }
    }
}

/// Returns a vector's LPI.
fn lpi(hwirq: HwIrq) -> Result<Lpi, MsiError> {
    Lpi::try_from(hwirq.get()).map_err(|_| MsiError::UnknownVector(hwirq))
}

/// Range of consecutive requesters with consecutive DeviceIDs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdRange {
    /// Lowest requester ID of the range, after `msi-map-mask` was applied.
    pub first_requester: RequesterId,
    /// Number of requesters.
    pub length: u32,
    /// DeviceID for the lowest requester.
    pub first_device: DeviceId,
}

impl IdRange {
    fn device(&self, requester: u32) -> Option<DeviceId> {
        let offset = requester.checked_sub(self.first_requester.get())?;
        if offset >= self.length {
            return None;
        }
        self.first_device.get().checked_add(offset).map(DeviceId::new)
    }

    fn reaches(&self, device: DeviceId) -> bool {
        device.get().checked_sub(self.first_device.get()).is_some_and(|offset| offset < self.length)
    }
}

/// Map from the requesters on a bus (a PCI host bridge or a platform device) to DeviceIDs at one
/// ITS.
#[derive(Debug)]
pub struct IdMap {
    mask: u32,
    ranges: Ranges,
}

/// A map's ranges. A single range, the usual case, needs no allocation.
#[derive(Debug)]
enum Ranges {
    One(IdRange),
    Many(Vec<IdRange>),
}

impl IdMap {
    /// Creates a map from these ranges. If ranges overlap, the first one applies.
    pub fn new(ranges: Vec<IdRange>) -> Self {
        Self { mask: u32::MAX, ranges: Ranges::Many(ranges) }
    }

    /// Creates a map in which every requester ID is also the DeviceID, e.g. for a bus with
    /// `msi-parent` and no `msi-map`.
    pub fn identity() -> Self {
        let all = IdRange {
            first_requester: RequesterId::new(0),
            length: u32::MAX,
            first_device: DeviceId::new(0),
        };
        Self { mask: u32::MAX, ranges: Ranges::One(all) }
    }

    /// Creates a map with a single requester.
    pub fn single(requester: RequesterId, device: DeviceId) -> Self {
        let range = IdRange { first_requester: requester, length: 1, first_device: device };
        Self { mask: u32::MAX, ranges: Ranges::One(range) }
    }

    /// Creates a map from every requester to this DeviceID, e.g. for functions behind a
    /// conventional PCI bridge: their messages carry the bridge's alias.
    pub fn shared(device: DeviceId) -> Self {
        Self::single(RequesterId::new(0), device).with_mask(0)
    }

    /// Restricts the lookup to these bits of requester IDs (`msi-map-mask`). Requesters that differ
    /// only in the other bits share a DeviceID.
    pub fn with_mask(self, mask: u32) -> Self {
        Self { mask, ..self }
    }

    /// Returns the DeviceID of a requester, or `None` if it is not mapped to this ITS.
    pub fn device(&self, requester: RequesterId) -> Option<DeviceId> {
        let masked = requester.get() & self.mask;
        self.ranges().iter().find_map(|range| range.device(masked))
    }

    /// Returns `true` if several requesters may have this DeviceID.
    pub fn is_shared(&self, device: DeviceId) -> bool {
        // PCI requester IDs have 16 bits.
        let masked = self.mask & 0xffff != 0xffff;
        masked || self.ranges().iter().filter(|range| range.reaches(device)).count() > 1
    }

    fn ranges(&self) -> &[IdRange] {
        match &self.ranges {
            Ranges::One(range) => core::slice::from_ref(range),
            Ranges::Many(ranges) => ranges,
        }
    }
}

/// Explains how far an LPI's message gets. `sender` is the device's DeviceID, if known. The
/// tables in memory are not examined, because their format is IMPLEMENTATION DEFINED.
///
/// Context: task; may sleep.
pub(super) fn explain<P: GicPlatform>(
    its: &Its<P>,
    lpi: Lpi,
    sender: Option<DeviceId>,
) -> Explanation {
    let Some(route) = its.routes.of(lpi) else {
        let interrupt = lpi.intid().hwirq();
        let obstacle = match its.gic.lpis().config(lpi) {
            Ok(_) => Obstacle::NoEvent { interrupt },
            Err(_) => Obstacle::NoSuchInterrupt { interrupt },
        };
        return Explanation::stopped(obstacle);
    };
    let doorbell = Fact::Doorbell(its.doorbell_of(route.device));
    let delivery = its.gic.explain_lpi(lpi, cpu_of(route.collection)).with_fact(doorbell);
    let obstacles = untranslated(its, route, sender);
    let event = obstacles.iter().all(Option::is_none).then(|| Fact::Event {
        device: route.device,
        event: route.event_id(),
        interrupt: lpi.intid().hwirq(),
    });
    delivery.with_obstacles(&obstacles).with_facts(&[event])
}

/// Returns the obstacles that keep the ITS from translating messages for this event.
fn untranslated<P: GicPlatform>(
    its: &Its<P>,
    route: EventRoute,
    sender: Option<DeviceId>,
) -> [Option<Obstacle>; 3] {
    let is_enabled = its.frame.registers.read(gits::CTLR).enabled();
    let disabled = Obstacle::ItsDisabled { its: its.frame.base };
    let (expected, actual) = (route.device, sender.filter(|actual| *actual != route.device));
    // An ITS that is disabled executes no commands, so don't wait for it.
    let stuck = || is_enabled.then(|| stuck_commands(its)).flatten();
    [
        (!is_enabled).then_some(disabled),
        actual.map(|actual| Obstacle::WrongDevice { expected, actual }),
        foreign_memory(its).or_else(stuck),
    ]
}

/// Returns an obstacle if a register no longer names the driver's table or queue.
fn foreign_memory<P: GicPlatform>(its: &Its<P>) -> Option<Obstacle> {
    let tables = its.state.with(its.platform(), |state| {
        let collections = state.collection_table.as_ref();
        let devices = state.devices.table.obstacle(&its.frame);
        devices.or_else(|| collections.and_then(|table| table.obstacle(&its.frame)))
    });
    tables.or_else(|| its.queue.obstacle(&its.frame))
}

/// Returns an obstacle if the queue is not empty and the ITS makes no progress within the
/// platform's time limit.
fn stuck_commands<P: GicPlatform>(its: &Its<P>) -> Option<Obstacle> {
    let registers = &its.frame.registers;
    let position = || (registers.read(gits::CREADR), registers.read(gits::CWRITER));
    let (first, mut write) = position();
    let mut read = first;
    let progress = wait_until(&**its.gic.platform(), "GITS_CREADR", || {
        (read, write) = position();
        read.slot() == write.slot() || read.slot() != first.slot()
    });
    let Err(TimedOut(_)) = progress else { return None };
    let read = read.offset() | u32::from(read.stalled());
    Some(Obstacle::CommandsQueued { read, write: write.offset() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, length: u32, device: u32) -> IdRange {
        IdRange {
            first_requester: RequesterId::new(first),
            length,
            first_device: DeviceId::new(device),
        }
    }

    #[test]
    fn device_id_is_offset_from_the_requester_range() {
        let map = IdMap::new(alloc::vec![range(0x100, 0x100, 0x2_0000), range(0x400, 1, 7)]);
        assert_eq!(map.device(RequesterId::new(0x1ff)), Some(DeviceId::new(0x2_00ff)));
        assert_eq!(map.device(RequesterId::new(0x400)), Some(DeviceId::new(7)));
        assert_eq!(map.device(RequesterId::new(0x200)), None);
        assert_eq!(map.device(RequesterId::new(0xff)), None);
    }

    #[test]
    fn masked_requesters_share_a_device() {
        let map = IdMap::identity().with_mask(0xfff8);
        assert_eq!(map.device(RequesterId::new(0x107)), map.device(RequesterId::new(0x100)));
        assert!(map.is_shared(DeviceId::new(0x100)));
    }

    #[test]
    fn an_unmasked_identity_map_shares_no_device_id() {
        assert!(!IdMap::identity().is_shared(DeviceId::new(0x100)));
    }

    #[test]
    fn every_requester_has_the_shared_device() {
        let map = IdMap::shared(DeviceId::new(0x2_0100));
        for requester in [RequesterId::pci(1, 0, 0), RequesterId::pci(1, 31, 7)] {
            assert_eq!(map.device(requester), Some(DeviceId::new(0x2_0100)));
        }
        assert!(map.is_shared(DeviceId::new(0x2_0100)));
    }

    #[test]
    fn a_device_id_in_two_output_ranges_is_shared() {
        let map = IdMap::new(alloc::vec![range(0, 8, 0x10), range(0x100, 8, 0x17)]);
        assert!(map.is_shared(DeviceId::new(0x17)));
        assert!(!map.is_shared(DeviceId::new(0x16)));
    }

    #[test]
    fn a_requester_mapped_beyond_the_maximum_has_no_device_id() {
        let map = IdMap::new(alloc::vec![range(0, u32::MAX, 0xffff_fff0)]);
        assert_eq!(map.device(RequesterId::new(0xf)), Some(DeviceId::new(u32::MAX)));
        assert_eq!(map.device(RequesterId::new(0x10)), None);
    }
}
