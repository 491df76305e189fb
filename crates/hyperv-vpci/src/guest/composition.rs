//! Interrupt messages: requests to the host, validation, and return.

use super::bus::{Bus, Outcome};
use super::function_table::FunctionId;
use super::interrupt_table::{Answer, FreedBlock, Interrupt};
use super::{Vectors, VpciError};
use crate::protocol::reply::InterruptReply;
use crate::protocol::{Delivery, InterruptDescriptor, Processors, Request, TranslatedInterrupt};
use msi_types::{HwIrq, HwIrqBlock, MsiError, MsiMessage};

pub(super) const CREATE: &str = "create interrupt";
const DELETE: &str = "delete interrupt";

impl Bus {
    /// Asks the host for a message, for a group or a single vector, and records it.
    pub(super) fn create(
        &self,
        first: HwIrq,
        interrupt: &Interrupt,
    ) -> Result<TranslatedInterrupt, MsiError> {
        let function = interrupt.function;
        let descriptor = InterruptDescriptor {
            vector: self.vectors.requested(interrupt.target, interrupt.count),
            delivery: Delivery::Fixed,
            count: interrupt.count,
            processors: Processors::one(self.processor(interrupt.target.cpu)?),
        };
        let form = self.version.interrupts();
        let slot = function.slot;
        let request = Request::CreateInterrupt { slot, form, interrupt: descriptor };
        let failed = |error: VpciError| error.as_msi_error(self.config.window);
        let completion = match self.request(CREATE, &request, Some(function)) {
            Ok(Outcome::Answered(completion)) => completion,
            Ok(Outcome::Unanswered(id, error)) => {
                self.with_link(|link| link.abandon(id, Some((function, first))));
                return Err(failed(error));
            }
            Err(error) => return Err(failed(error)),
        };
        let malformed = |error| failed(VpciError::Protocol { operation: CREATE, error });
        let refused = |status| failed(VpciError::Refused { operation: CREATE, status });
        let InterruptReply(answer) =
            InterruptReply::parse(completion.bytes()).map_err(malformed)?.map_err(refused)?;
        if let Err(error) = self.check(first, interrupt, &answer) {
            self.give_back(function, answer);
            return Err(error);
        }
        self.with_link(|link| {
            link.check_present(Some(function)).map_err(failed)?;
            self.with_interrupts(|interrupts| {
                if let Some(interrupt) = interrupts.get_mut(first) {
                    interrupt.answer = Answer::Known(answer);
                }
            });
            Ok(answer)
        })
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
        let function = interrupt.function;
        if self.with_interrupts(|interrupts| interrupts.is_taken(function, answer)) {
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
                    self.vectors.retarget(function.slot, message, place, processor)?;
                }
            }
        }
        Ok(())
    }

    /// Returns an unusable answer to the host, unless another interrupt has the same message. In
    /// that case, the host would delete the other interrupt's message.
    fn give_back(&self, to: FunctionId, interrupt: TranslatedInterrupt) {
        self.with_link(|link| {
            if !self.with_interrupts(|interrupts| interrupts.is_taken(to, &interrupt)) {
                link.give_back(to, interrupt);
            }
        });
    }

    /// Frees a masked group or single vector, and waits until the host has confirmed that the
    /// message is deleted. If the host takes too long, the vectors stay allocated until it does, as
    /// they do while a request for the message is unanswered.
    pub(super) fn free_block(&self, cookie: u32, block: HwIrqBlock) {
        let deletion = self.with_link(|link| {
            let Some(Interrupt { answer, function, .. }) = self.remove_block(&block) else {
                link.devices.release(&self.vectors, cookie, block);
                return None;
            };
            let interrupt = match answer {
                Answer::Known(interrupt) => Some(interrupt),
                Answer::None | Answer::Asked | Answer::Lost => None,
            };
            let freed = FreedBlock { cookie, block, function, interrupt };
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
