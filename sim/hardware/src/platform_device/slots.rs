//! A slot in a platform device, with its messages and the events that it still has to signal.

use super::config::{DataWidth, PlatformDeviceConfig};
use super::registers::{self, COMMIT, MASK};
use crate::pci::AddressWidth;
use msi_types::{MsiMessage, Rewrite, Trigger};

/// A word in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotWord {
    pub(super) slot: usize,
    message: MessageIndex,
    /// Offset of the word within the slot.
    word: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum MessageIndex {
    First,
    Second,
}

/// Decodes a register offset into a word of a slot.
pub(super) fn place(offset: u64) -> Option<SlotWord> {
    let (message, base) = match offset {
        registers::SECOND.. => (MessageIndex::Second, registers::SECOND),
        _ => (MessageIndex::First, registers::SLOTS),
    };
    let offset = offset.checked_sub(base)?;
    let slot = usize::try_from(offset / registers::SLOT_SIZE).ok()?;
    Some(SlotWord { slot, message, word: offset % registers::SLOT_SIZE })
}

/// A slot.
#[derive(Clone, Debug)]
pub(super) struct MessageSlot {
    /// The message for an edge or an asserted level, and the message for a deasserted level.
    first: MsiMessage,
    second: MsiMessage,
    /// The words written since the last commit.
    staged: MsiMessage,
    masked: bool,
    /// Set while an edge hasn't been signaled yet, or while a level is asserted.
    raised: bool,
    /// Set if the controller has been told that the level is asserted.
    told: bool,
}

impl MessageSlot {
    /// Returns the reset state.
    pub(super) fn new(plan: PlatformDeviceConfig) -> Self {
        let [first, second, staged] = [MsiMessage::default(); 3];
        let masked = plan.rewrite == Rewrite::Masked;
        Self { first, second, staged, masked, raised: false, told: false }
    }

    pub(super) fn raise(&mut self) {
        self.raised = true;
    }

    pub(super) fn lower(&mut self) {
        self.raised = false;
    }

    pub(super) fn forget(&mut self) {
        (self.raised, self.told) = (false, false);
    }

    pub(super) fn unmask(&mut self) {
        self.masked = false;
    }

    pub(super) fn is_masked(&self) -> bool {
        self.masked
    }

    /// Returns the next message to send, or `None` if no message is due or the slot is masked.
    pub(super) fn next_message(&mut self, trigger: Trigger) -> Option<MsiMessage> {
        if self.masked || self.raised == self.told {
            return None;
        }
        self.told = self.raised;
        match trigger {
            Trigger::Edge => {
                self.forget();
                Some(self.first)
            }
            Trigger::Level if self.raised => Some(self.first),
            Trigger::Level => Some(self.second),
        }
    }

    pub(super) fn read(&self, place: SlotWord) -> u32 {
        let message = match place.message {
            MessageIndex::First => self.first,
            MessageIndex::Second => self.second,
        };
        match place.word {
            registers::ADDRESS_LOW => message.address_low(),
            registers::ADDRESS_HIGH => message.address_high(),
            registers::DATA => message.data,
            registers::SLOT_CONTROL => u32::from(self.masked),
            _ => 0,
        }
    }

    pub(super) fn write(&mut self, plan: PlatformDeviceConfig, place: SlotWord, value: u32) {
        let message = match (place.message, plan.rewrite) {
            (MessageIndex::Second, _) => &mut self.second,
            (MessageIndex::First, Rewrite::Atomic64) => &mut self.staged,
            (MessageIndex::First, Rewrite::AddressOnly) if place.word != registers::DATA => {
                &mut self.staged
            }
            (MessageIndex::First, _) => &mut self.first,
        };
        match place.word {
            registers::ADDRESS_LOW => {
                message.address = message.address & !u64::from(u32::MAX) | u64::from(value);
            }
            registers::ADDRESS_HIGH if plan.address == AddressWidth::Bits64 => {
                message.address = u64::from(value) << 32 | message.address & u64::from(u32::MAX);
            }
            registers::DATA => {
                message.data = if plan.data == DataWidth::Bits16 { value & 0xffff } else { value };
            }
            registers::SLOT_CONTROL if place.message == MessageIndex::First => {
                self.control(plan, value);
            }
            _ => {}
        }
    }

    fn control(&mut self, plan: PlatformDeviceConfig, value: u32) {
        self.masked = plan.rewrite == Rewrite::Masked && value & MASK != 0;
        match plan.rewrite {
            Rewrite::Atomic64 if value & COMMIT != 0 => self.first = self.staged,
            Rewrite::AddressOnly if value & COMMIT != 0 => self.first.address = self.staged.address,
            _ => {}
        }
    }
}
