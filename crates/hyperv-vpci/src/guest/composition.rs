//! Interrupt messages: requests to the host, validation, and return.

use super::bus::{Bus, Outcome};
use super::deletion_queue::FreedBlock;
use super::interrupt_table::{Answer, Interrupt};
use super::link::LateMessage;
use super::{Vectors, VpciError};
use crate::protocol::reply::InterruptReply;
use crate::protocol::{
    Delivery, InterruptDescriptor, Processors, Request, Slot, TranslatedInterrupt,
};
use msi_types::{HwIrq, HwIrqBlock, MsiError, MsiMessage};

pub(super) const CREATE: &str = "create interrupt";
const DELETE: &str = "delete interrupt";

impl Bus {
    /// Asks the host for a message, for a group or a single vector.
    pub(super) fn create(
        &self,
        first: HwIrq,
        interrupt: &Interrupt,
    ) -> Result<TranslatedInterrupt, MsiError> {
        let (slot, epoch) = (interrupt.slot, interrupt.epoch);
        let descriptor = InterruptDescriptor {
            vector: self.vectors.requested(interrupt.target, interrupt.count),
            delivery: Delivery::Fixed,
            count: interrupt.count,
            processors: Processors::one(self.processor(interrupt.target.cpu)?),
        };
        let form = self.version.interrupts();
        let request = Request::CreateInterrupt { slot, form, interrupt: descriptor };
        let failed = |error: VpciError| error.as_msi_error(self.config.window);
        let completion = match self.request(CREATE, &request, Some((slot, epoch))) {
            Ok(Outcome::Answered(completion)) => completion,
            Ok(Outcome::Unanswered(id, error)) => {
                self.with_link(|link| link.abandon(id, Some(LateMessage { slot, epoch })));
                return Err(failed(error));
            }
            Err(error) => return Err(failed(error)),
        };
        let malformed = |error| failed(VpciError::Protocol { operation: CREATE, error });
        let refused = |status| failed(VpciError::Refused { operation: CREATE, status });
        let InterruptReply(answer) =
            InterruptReply::parse(completion.bytes()).map_err(malformed)?.map_err(refused)?;
        if let Err(error) = self.check(first, interrupt, &answer) {
            self.give_back(slot, answer);
            return Err(error);
        }
        Ok(answer)
    }

    /// Validates an answer: the function must be able to store the message, and no other interrupt
    /// may already have it. On x86, also reports a group's vectors to the hypervisor, one by one.
    fn check(
        &self,
        first: HwIrq,
        interrupt: &Interrupt,
        answer: &TranslatedInterrupt,
    ) -> Result<(), MsiError> {
        let useless = |reason| {
            Err(VpciError::BadAnswer { operation: CREATE, reason }.as_msi_error(self.config.window))
        };
        let count = interrupt.count;
        if answer.count != count {
            return useless("the host granted a different number of vectors");
        }
        if !answer.message.data.is_multiple_of(count.into()) {
            return useless("the host's data is not aligned to the group");
        }
        let highest = answer.message.data | u32::from(count - 1);
        interrupt.fit.check(MsiMessage { data: highest, ..answer.message })?;
        let (slot, epoch) = (interrupt.slot, interrupt.epoch);
        if self.with_interrupts(|interrupts| interrupts.is_taken(slot, epoch, answer)) {
            return useless("the host gave this message to another interrupt");
        }
        if let (Vectors::Apic(_), 2..) = (&self.vectors, count) {
            for index in 0..count {
                let member = first.checked_add(index.into());
                let place = member.and_then(|hwirq| {
                    self.with_interrupts(|interrupts| interrupts.get(hwirq).map(|of| of.target))
                });
                let data = answer.message.data | u32::from(index);
                let message = MsiMessage { data, ..answer.message };
                if let Some(place) = place {
                    let processor = self.processor(place.cpu)?;
                    self.vectors.retarget(self.version, slot, message, place, processor)?;
                }
            }
        }
        Ok(())
    }

    /// Returns an unusable answer to the host, unless another interrupt has the same message. In
    /// that case, the host would delete the other interrupt's message.
    fn give_back(&self, slot: Slot, interrupt: TranslatedInterrupt) {
        let epoch = self.with_link(|link| link.functions.get(slot).map(|of| of.epoch));
        let Some(epoch) = epoch else { return };
        let taken = self.with_interrupts(|interrupts| interrupts.is_taken(slot, epoch, &interrupt));
        if !taken {
            self.with_link(|link| link.send_later(Request::DeleteInterrupt { slot, interrupt }));
        }
    }

    /// Frees a masked group or single vector, and waits until the host has confirmed that the
    /// message is deleted. If the host takes too long, the vectors stay allocated until it does.
    pub(super) fn free_block(&self, cookie: u32, block: HwIrqBlock) {
        let deletion = self.with_link(|link| {
            let first = self.remove_block(&block);
            let Some(Interrupt { answer: Answer::Known(interrupt), slot, epoch, .. }) = first
            else {
                link.devices.release(&self.vectors, cookie, block);
                return None;
            };
            let freed = FreedBlock { cookie, block, slot, epoch, interrupt };
            link.delete(&self.vectors, freed)
        });
        let Some(id) = deletion else { return };
        let confirmed = self.wait(DELETE, |link| Ok(link.is_settled(id).then_some(())));
        if let Err(VpciError::Silent(_)) = confirmed {
            self.with_link(|link| link.give_up(id));
        }
    }

    /// Removes a block's vectors from the table and returns the first one.
    fn remove_block(&self, block: &HwIrqBlock) -> Option<Interrupt> {
        self.with_interrupts(|interrupts| {
            let first = interrupts.get(block.first()).copied();
            for hwirq in (0..block.count().get()).filter_map(|index| block.hwirq(index)) {
                interrupts.remove(hwirq);
            }
            first
        })
    }
}
