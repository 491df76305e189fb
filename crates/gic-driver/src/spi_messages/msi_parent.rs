//! SPIs behind doorbells as the parent of devices. There is nothing to know about a device.

use super::{Doorbell, Groups, SpiMessages};
use crate::Platform;
use core::fmt;
use core::num::NonZeroU16;
use msi_types::{
    Attachment, BlockRequest, Capabilities, Capability, Cpu, DoorbellPage, Granule, Initially,
    Isolation, LevelMessages, Move, MoveOutcome, MsiError, MsiMessage, MsiParent, NotIsolated,
    Pending, Properties, Property, RequesterId, Tier, Trigger, Vector, VectorBlock,
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
    ) -> Result<VectorBlock, MsiError> {
        let place = self.take(request.count, request.shape)?;
        let block = VectorBlock::new(place.first, request.count);
        match self.set_up(place.bank, &block, request) {
            Ok(()) => Ok(block),
            Err(error) => {
                self.tear_down(&block);
                Err(error)
            }
        }
    }

    fn free(&self, _device: &Attachment, block: VectorBlock) {
        self.tear_down(&block);
    }

    fn compose(&self, block: &VectorBlock, index: u16) -> Result<MsiMessage, MsiError> {
        self.message_of(nth(block, index)?)
    }

    fn compose_level(&self, block: &VectorBlock, index: u16) -> Result<LevelMessages, MsiError> {
        let vector = nth(block, index)?;
        let messages = self.level_messages_of(vector)?;
        self.wired.set_trigger(vector, Trigger::Level)?;
        Ok(messages)
    }

    fn begin_move(&self, block: &VectorBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let vector = nth(block, index)?;
        let from = self.target(vector)?;
        self.wired.set_target(vector, to)?;
        self.retarget(vector, to)?;
        // The message names no CPU, so that even a member of an aligned group moves alone.
        Ok(Move { first: vector, count: NonZeroU16::MIN, message: None, from, to })
    }

    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        if outcome == MoveOutcome::RolledBack {
            self.wired.set_target(moved.first, moved.from)?;
            self.retarget(moved.first, moved.from)?;
        }
        Ok(())
    }

    fn mask(&self, vector: Vector) {
        if self.doorbell_of(vector).is_ok() {
            self.wired.mask(vector);
        }
    }

    fn unmask(&self, vector: Vector) {
        if self.doorbell_of(vector).is_ok() {
            self.wired.unmask(vector);
        }
    }

    fn set_pending(&self, vector: Vector, pending: Pending) {
        if self.doorbell_of(vector).is_ok() {
            self.wired.set_pending(vector, pending);
        }
    }

    fn is_pending(&self, vector: Vector) -> Option<bool> {
        self.doorbell_of(vector).is_ok().then(|| self.wired.is_pending(vector))
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
        // The worst of them, because the caller does not say which.
        pages.fold(DoorbellPage::Alone, |worst, page| match (worst, page) {
            (DoorbellPage::HoldsControls(name), _) | (_, DoorbellPage::HoldsControls(name)) => {
                DoorbellPage::HoldsControls(name)
            }
            (DoorbellPage::Unknown, _) | (_, DoorbellPage::Unknown) => DoorbellPage::Unknown,
            (DoorbellPage::Alone, DoorbellPage::Alone) => DoorbellPage::Alone,
        })
    }

    fn describe(&self, vector: Vector, out: &mut dyn fmt::Write) -> fmt::Result {
        match (self.doorbell_of(vector), self.target(vector)) {
            (Ok(doorbell), Ok(cpu)) => {
                writeln!(out, "{}@{:x}: SPI {vector} at CPU {cpu}", D::KIND, doorbell.address())
            }
            _ => writeln!(out, "{}: SPI {vector} is not handed out", D::KIND),
        }
    }
}

impl<P: Platform, D: Doorbell> SpiMessages<P, D> {
    /// Edge-triggered, routed, and forwarded if that is wanted.
    fn set_up(
        &self,
        bank: usize,
        block: &VectorBlock,
        request: &BlockRequest,
    ) -> Result<(), MsiError> {
        if let Some(doorbell) = self.doorbells.get(bank) {
            for vector in vectors(block) {
                request.fit.check(doorbell.message(vector))?;
            }
        }
        for vector in vectors(block) {
            self.wired.set_trigger(vector, Trigger::Edge)?;
            // Its last owner's device may have sent a message after the vector was given back.
            self.wired.set_pending(vector, Pending::Clear);
            self.wired.set_target(vector, request.cpu)?;
            self.retarget(vector, request.cpu)?;
        }
        if request.initially == Initially::Unmasked {
            vectors(block).for_each(|vector| self.wired.unmask(vector));
        }
        Ok(())
    }

    /// Masked and not pending: a level that a device left asserted ends with its trigger.
    fn tear_down(&self, block: &VectorBlock) {
        for vector in vectors(block) {
            self.wired.mask(vector);
            // While it is a level still: a message that raised it counts until another takes it
            // back.
            self.wired.set_pending(vector, Pending::Clear);
            // It may refuse what it allowed before; the next owner asks again and hears of it.
            let _ = self.wired.set_trigger(vector, Trigger::Edge);
            self.wired.set_pending(vector, Pending::Clear);
        }
        self.give_back(block.first(), block.count());
    }
}

fn vectors(block: &VectorBlock) -> impl Iterator<Item = Vector> {
    (0..block.count().get()).filter_map(|index| block.vector(index))
}

fn nth(block: &VectorBlock, index: u16) -> Result<Vector, MsiError> {
    block.vector(index).ok_or(MsiError::UnknownVector(block.first()))
}
