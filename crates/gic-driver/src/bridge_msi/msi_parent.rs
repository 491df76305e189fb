//! MSI parent implementation of a controller inside a host bridge.

use super::{BridgeMsi, Place};
use crate::{Alignment, Mmio as _, Platform};
use core::fmt;
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{
    Attachment, BlockRequest, Cpu, DoorbellPage, Granule, HwIrq, HwIrqBlock, Initially, Isolation,
    Move, MoveOutcome, MsiError, MsiMessage, MsiParent, NotIsolated, Pending, RequesterId, Tier,
};

impl<P: Platform> MsiParent for BridgeMsi<P> {
    fn isolation(&self, _of: RequesterId) -> Isolation {
        Isolation::NotIsolated(NotIsolated::SharedDoorbell("the host bridge's own controller"))
    }

    fn allocate(
        &self,
        _device: &Attachment,
        request: &BlockRequest,
    ) -> Result<HwIrqBlock, MsiError> {
        let count = request.count;
        let no_vectors = MsiError::NoVectors { wanted: count.get() };
        let align = Alignment::of(request.shape, count.into()).ok_or(no_vectors)?;
        let first = self.state.with(&*self.platform, |state| {
            state.allocator.allocate(count.into(), align).map(HwIrq::new).map_err(|_| no_vectors)
        })?;
        let block = HwIrqBlock::new(first, count);
        if let Err(error) = block.hwirqs().try_for_each(|hwirq| self.fits(request, hwirq)) {
            self.state.with(&*self.platform, |state| {
                // The block was just allocated.
                let _ = state.allocator.free(first.get(), count.into());
            });
            return Err(error);
        }
        for (_, place) in self.vectors_of(&block) {
            self.set_mask(place, request.initially == Initially::Masked);
            self.set_enabled(place, true);
        }
        Ok(block)
    }

    fn allocate_managed(
        &self,
        _device: &Attachment,
        _request: &BlockRequest,
        _among: &[Cpu],
    ) -> Result<HwIrqBlock, MsiError> {
        Err(MsiError::SharesLine(self.lines().first().copied().unwrap_or_default()))
    }

    fn free(&self, _device: &Attachment, block: HwIrqBlock) {
        for (_, place) in self.vectors_of(&block) {
            self.set_enabled(place, false);
            self.forget(place);
        }
        self.state.with(&*self.platform, |state| {
            // A block can't be freed twice, because its type is not `Clone`.
            let _ = state.allocator.free(block.first().get(), block.count().into());
        });
    }

    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        let hwirq = block.nth(index)?;
        self.message(hwirq).ok_or(MsiError::UnknownVector(hwirq))
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, _to: Cpu) -> Result<Move, MsiError> {
        let hwirq = block.nth(index)?;
        let place = self.place(hwirq).ok_or(MsiError::UnknownVector(hwirq))?;
        Err(MsiError::SharesLine(self.line_of(place)))
    }

    fn end_move(&self, _moved: Move, _outcome: MoveOutcome) -> Result<(), MsiError> {
        Ok(())
    }

    fn mask(&self, hwirq: HwIrq) {
        if let Some(place) = self.place(hwirq) {
            self.set_mask(place, true);
        }
    }

    fn unmask(&self, hwirq: HwIrq) {
        if let Some(place) = self.place(hwirq) {
            self.set_mask(place, false);
        }
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        let Some(place) = self.place(hwirq) else { return };
        match pending {
            Pending::Clear => self.forget(place),
            Pending::Set => {
                if place.block.note(place.bit) {
                    self.raise_line(place);
                }
            }
        }
    }

    fn line(&self, hwirq: HwIrq) -> Option<HwIrq> {
        Some(self.line_of(self.place(hwirq)?))
    }

    fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        self.place(hwirq).map(|place| self.is_waiting(place))
    }

    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        let doorbell = core::iter::once(self.config.doorbell);
        visit(&Tier::of_controller(self.kind().name(), doorbell));
    }

    fn doorbell_page(&self, _granule: Granule) -> DoorbellPage {
        DoorbellPage::InBridge
    }

    fn explain(&self, hwirq: HwIrq, _requester: RequesterId) -> Explanation {
        let Some((place, message)) = self.place(hwirq).zip(self.message(hwirq)) else {
            return Explanation::stopped(Obstacle::NoSuchInterrupt { interrupt: hwirq });
        };
        let closed = self.closed_gate().map(|gate| Obstacle::GateClosed { gate });
        let is_off = !self.is_enabled(place) || place.block.is_masked(place.bit);
        let disabled = is_off.then_some(Obstacle::Disabled { interrupt: hwirq });
        let needs = self.layout().needs(place.number, place.bit, self.config.doorbell);
        let changed = needs.filter(|_| !is_off).filter_map(|need| {
            let found = self.frame.read32(need.offset) & need.bits;
            let (register, wanted) = (need.name, need.value);
            (found != wanted).then_some(Obstacle::Overwritten { register, found, wanted })
        });
        let line = self.line_of(place);
        let waiting = self.is_waiting(place).then_some(Fact::Pending(hwirq));
        let facts = [Some(Fact::Doorbell(message.address)), Some(Fact::Input(line)), waiting];
        let wired = self.wired.explain(line);
        // The block holds its line high while a message waits.
        let is_edge = wired.facts().all(|fact| fact != Fact::LevelSensitive);
        let is_lost = is_edge && waiting.is_some() && wired.is_idle();
        let lost = is_lost.then_some(Obstacle::NoEdge { interrupt: line });
        let explained = wired.with_facts(&facts).with_obstacles(&[closed, disabled, lost]);
        changed.fold(explained, |all, it| all.with_obstacles(&[Some(it)]))
    }

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        let (name, at) = (self.kind().name(), self.config.registers);
        match self.place(hwirq) {
            Some(place) => {
                writeln!(out, "{name}@{at:x}: vector {hwirq} by line {}", self.line_of(place))
            }
            None => writeln!(out, "{name}@{at:x}: vector {hwirq} does not exist"),
        }
    }
}

impl<P: Platform> BridgeMsi<P> {
    fn vectors_of<'a>(
        &'a self,
        block: &'a HwIrqBlock,
    ) -> impl Iterator<Item = (HwIrq, Place<'a>)> + 'a {
        block.hwirqs().filter_map(|hwirq| Some((hwirq, self.place(hwirq)?)))
    }

    fn fits(&self, request: &BlockRequest, hwirq: HwIrq) -> Result<(), MsiError> {
        let message = self.message(hwirq).ok_or(MsiError::UnknownVector(hwirq))?;
        request.fit.check(message)
    }
}
