//! The ITS as the parent of a bus's devices: which requester has which DeviceID, and what an
//! endpoint can store.

use super::events::EventRequest;
use super::id_map::IdMap;
use super::{Its, ItsError};
use crate::platform::GicPlatform;
use alloc::sync::Arc;
use core::fmt;
use gic_arch::Lpi;
use msi_types::{
    Attachment, BlockRequest, Capabilities, Cpu, DoorbellPage, Granule, HwIrq, HwIrqBlock,
    IsolatingMechanism, Isolation, Move, MoveOutcome, MsiError, MsiMessage, MsiParent, NotIsolated,
    Pending, Properties, Property, RequesterId, Tier,
};

/// Number of events reserved for a DeviceID that several requesters may share. A bus behind a
/// bridge to conventional PCI has up to 32 devices, and MSI supports up to 32 vectors.
const SHARED_ROOM: u32 = 32 * 32;

/// One bus's way to an ITS. Several buses, and platform devices, have one each over the same
/// [`Its`].
#[derive(Debug)]
pub struct ItsMsiParent<P: GicPlatform> {
    its: Arc<Its<P>>,
    map: IdMap,
}

impl<P: GicPlatform> ItsMsiParent<P> {
    /// Devices of a bus whose requesters are mapped by `map`.
    pub fn new(its: Arc<Its<P>>, map: IdMap) -> Self {
        Self { its, map }
    }

    /// The ITS.
    pub fn its(&self) -> &Arc<Its<P>> {
        &self.its
    }

    /// The bus's mapping.
    pub fn map(&self) -> &IdMap {
        &self.map
    }

    fn message_of(&self, hwirq: HwIrq) -> Result<MsiMessage, MsiError> {
        self.its.message(lpi(hwirq)?).ok_or(MsiError::UnknownVector(hwirq))
    }

    /// Runs an operation that has no way to report a failure.
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
                NotIsolated::SharedDoorbell("the window before the ITS (pre-its)"),
            ),
            Some(_) => Isolation::Isolated(IsolatingMechanism::Its),
            None => Isolation::NotIsolated(NotIsolated::NoController),
        }
    }

    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        let tier = Tier::new("its").with_provides(Capabilities::ALL);
        let wide = Properties::NONE.with(Property::WideAddress);
        visit(&if self.its.doorbell() > u32::MAX.into() { tier.with_requires(wide) } else { tier });
    }

    /// The translation frame has 64 KiB of its own, and no other register (IHI 0069 §12.19).
    fn doorbell_page(&self, _granule: Granule) -> DoorbellPage {
        DoorbellPage::Alone
    }

    fn attach(&self, device: RequesterId, max: u32) -> Result<Attachment, MsiError> {
        let id = self.map.device(device).ok_or(MsiError::NoRoute(device))?;
        let room = if self.map.is_shared(id) { max.max(SHARED_ROOM) } else { max };
        Ok(self.its.attach_shared(id, max, room)?)
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
        // The address is refused before anything is done for it.
        fit.check(MsiMessage { address: self.its.doorbell(), data: 0 })?;
        let block = self.its.map_events(
            device,
            EventRequest::new(count, cpu).with_shape(shape).with_initially(initially),
        )?;
        let last = block.hwirq(count.get() - 1).unwrap_or(block.first());
        match self.message_of(last).and_then(|message| fit.check(message)) {
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
        let hwirq = block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?;
        self.message_of(hwirq)
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let hwirq = block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?;
        let from = self.its.move_event(lpi(hwirq)?, to)?;
        // The message names no CPU, so that even a member of an aligned group moves alone.
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

/// The LPI that a vector stands for.
fn lpi(hwirq: HwIrq) -> Result<Lpi, MsiError> {
    Lpi::try_from(hwirq.get()).map_err(|_| MsiError::UnknownVector(hwirq))
}
