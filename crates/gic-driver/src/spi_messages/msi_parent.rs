//! MSI parent implementation for message-based SPIs, which needs no per-device state.

use super::{Doorbell, Groups, SpiMessages};
use crate::Platform;
use core::fmt;
use core::num::NonZeroU16;
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{
    Attachment, BlockRequest, Capabilities, Capability, Cpu, DoorbellPage, Granule, HwIrq,
    HwIrqBlock, Initially, Isolation, LevelMessages, Move, MoveOutcome, MsiError, MsiMessage,
    MsiParent, NotIsolated, Pending, Properties, Property, RequesterId, Tier, Trigger,
};

impl<P: Platform, D: Doorbell> MsiParent for SpiMessages<P, D> {
    fn isolation(&self, _of: RequesterId) -> Isolation {
        let reason =
            self.doorbells.first().map_or(NotIsolated::NoController, Doorbell::not_isolated);
        Isolation::NotIsolated(reason)
    }

    fn attach(&self, _device: RequesterId, _max: u32) -> Result<Attachment, MsiError> {
        Ok(Attachment::new(0))
    }

    fn detach(&self, _device: Attachment) {}

    fn allocate(
        &self,
        _device: &Attachment,
        request: &BlockRequest,
    ) -> Result<HwIrqBlock, MsiError> {
        let allocation = self.allocate_vectors(request.count, request.shape)?;
        let block = HwIrqBlock::new(allocation.first, request.count);
        match self.set_up(allocation.allocator, &block, request) {
            Ok(()) => Ok(block),
            Err(error) => {
                self.tear_down(&block);
                Err(error)
            }
        }
    }

    fn free(&self, _device: &Attachment, block: HwIrqBlock) {
        self.tear_down(&block);
    }

    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        self.message_of(nth(block, index)?)
    }

    fn compose_level(&self, block: &HwIrqBlock, index: u16) -> Result<LevelMessages, MsiError> {
        let hwirq = nth(block, index)?;
        let messages = self.level_messages_of(hwirq)?;
        self.wired.set_trigger(hwirq, Trigger::Level)?;
        Ok(messages)
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let hwirq = nth(block, index)?;
        let from = self.target(hwirq)?;
        self.wired.set_target(hwirq, to)?;
        self.retarget(hwirq, to)?;
        // The message doesn't encode a CPU, so each member of an aligned group can be moved
        // separately.
        Ok(Move { first: hwirq, count: NonZeroU16::MIN, message: None, from, to })
    }

    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        if outcome == MoveOutcome::RolledBack {
            self.wired.set_target(moved.first, moved.from)?;
            self.retarget(moved.first, moved.from)?;
        }
        Ok(())
    }

    fn mask(&self, hwirq: HwIrq) {
        if self.doorbell_of(hwirq).is_ok() {
            self.wired.mask(hwirq);
        }
    }

    fn unmask(&self, hwirq: HwIrq) {
        if self.doorbell_of(hwirq).is_ok() {
            self.wired.unmask(hwirq);
        }
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        if self.doorbell_of(hwirq).is_ok() {
            self.wired.set_pending(hwirq, pending);
        }
    }

    fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        self.doorbell_of(hwirq).is_ok().then(|| self.wired.is_pending(hwirq))
    }

    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        let doorbells = self.doorbells();
        let groups = doorbells.iter().any(|doorbell| doorbell.groups() == Groups::Possible);
        let all = Capabilities::ALL;
        let provides = if groups { all } else { all.without(Capability::Groups) };
        let tier = Tier::new(D::KIND).with_provides(provides);
        let out_of_reach = doorbells.iter().all(|doorbell| doorbell.address() > u32::MAX.into());
        let wide = Properties::NONE.with(Property::WideAddress);
        visit(&if out_of_reach { tier.with_requires(wide) } else { tier });
    }

    fn doorbell_page(&self, granule: Granule) -> DoorbellPage {
        let pages = self.doorbells().iter().map(|doorbell| doorbell.page(granule));
        // The caller does not specify a doorbell, so report the least isolated page of all
        // doorbells.
        pages.fold(DoorbellPage::Alone, |worst, page| match (worst, page) {
            (DoorbellPage::HoldsControls(name), _) | (_, DoorbellPage::HoldsControls(name)) => {
                DoorbellPage::HoldsControls(name)
            }
            (DoorbellPage::Unknown, _) | (_, DoorbellPage::Unknown) => DoorbellPage::Unknown,
            _ => DoorbellPage::Alone,
        })
    }

    fn explain(&self, hwirq: HwIrq, _: RequesterId) -> Explanation {
        match self.message_of(hwirq) {
            Ok(message) => Explanation::new()
                .with_fact(Fact::Doorbell(message.address))
                .with_fact(Fact::MessageIntid(hwirq))
                .and_then(|| self.wired.explain(hwirq)),
            Err(_) => {
                Explanation::new().with_obstacle(Obstacle::NoSuchInterrupt { interrupt: hwirq })
            }
        }
    }

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        match (self.doorbell_of(hwirq), self.target(hwirq)) {
            (Ok(doorbell), Ok(cpu)) => {
                writeln!(out, "{}@{:x}: SPI {hwirq} at CPU {cpu}", D::KIND, doorbell.address())
            }
            _ => writeln!(out, "{}: SPI {hwirq} is not allocated", D::KIND),
        }
    }
}

impl<P: Platform, D: Doorbell> SpiMessages<P, D> {
    /// Makes the vectors edge-triggered, routes them, and unmasks them if requested.
    fn set_up(
        &self,
        allocator: usize,
        block: &HwIrqBlock,
        request: &BlockRequest,
    ) -> Result<(), MsiError> {
        if let Some(doorbell) = self.doorbells.get(allocator) {
            for hwirq in vectors(block) {
                request.fit.check(doorbell.message(hwirq))?;
            }
        }
        for hwirq in vectors(block) {
            self.wired.set_trigger(hwirq, Trigger::Edge)?;
            // Clear the pending state, because the last owner's device may have sent a message
            // after the vector was freed.
            self.wired.set_pending(hwirq, Pending::Clear);
            self.wired.set_target(hwirq, request.cpu)?;
            self.retarget(hwirq, request.cpu)?;
        }
        if request.initially == Initially::Unmasked {
            vectors(block).for_each(|hwirq| self.wired.unmask(hwirq));
        }
        Ok(())
    }

    /// Masks the vectors, clears their pending state (including levels that a device left
    /// asserted), and frees them.
    fn tear_down(&self, block: &HwIrqBlock) {
        for hwirq in vectors(block) {
            self.wired.mask(hwirq);
            // Clear the pending state while the trigger is still level: a level that a message
            // asserted persists until it is deasserted.
            self.wired.set_pending(hwirq, Pending::Clear);
            // Ignore a failure, because the next allocation sets the trigger again and returns the
            // error.
            let _ = self.wired.set_trigger(hwirq, Trigger::Edge);
            self.wired.set_pending(hwirq, Pending::Clear);
        }
        self.free_vectors(block.first(), block.count());
    }
}

fn vectors(block: &HwIrqBlock) -> impl Iterator<Item = HwIrq> {
    (0..block.count().get()).filter_map(|index| block.hwirq(index))
}

fn nth(block: &HwIrqBlock, index: u16) -> Result<HwIrq, MsiError> {
    block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))
}
