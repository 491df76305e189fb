//! A slot in a platform device, with its messages and the events that it still has to signal.

use super::config::{
    COMMIT, DataWidth, MASK, PlatformDeviceConfig, SECOND, SLOT_CONTROL, SLOT_SIZE, SLOTS,
};
use crate::pci::AddressWidth;
use msi_types::{MsiMessage, Rewrite, Trigger};

/// Words of a message: the halves of the address, then the data.
const HIGH: usize = 1;
const DATA: usize = 2;
/// The word behind a message.
const CONTROL: usize = (SLOT_CONTROL / 4) as usize;

/// A word in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SlotWord {
    pub(super) slot: usize,
    /// 0 for the slot's first message, 1 for the second.
    message: usize,
    word: usize,
}

/// Decodes a register offset into a word of a slot.
pub(super) fn place(offset: u64) -> Option<SlotWord> {
    let (message, base) = if offset < SECOND { (0, SLOTS) } else { (1, SECOND) };
    let offset = offset.checked_sub(base)?;
    let index = |number: u64| usize::try_from(number).ok();
    let (slot, word) = (index(offset / SLOT_SIZE)?, index(offset % SLOT_SIZE / 4)?);
    Some(SlotWord { slot, message, word })
}

/// A slot.
#[derive(Clone, Debug)]
pub(super) struct MessageSlot {
    /// The message for an edge or an asserted level, and the message for a deasserted level.
    messages: [[u32; 3]; 2],
    /// The words of the first message that wait for a commit.
    staged: [u32; 3],
    pub(super) masked: bool,
    /// Set while an edge hasn't been signaled yet, or while a level is asserted.
    pub(super) raised: bool,
    /// Set if the controller has been told that the level is asserted.
    told: bool,
}

impl MessageSlot {
    /// Returns the reset state.
    pub(super) fn new(config: PlatformDeviceConfig) -> Self {
        let masked = config.rewrite == Rewrite::Masked;
        Self { messages: [[0; 3]; 2], staged: [0; 3], masked, raised: false, told: false }
    }

    pub(super) fn forget(&mut self) {
        (self.raised, self.told) = (false, false);
    }

    /// Returns the next message to send, or `None` if no message is due or the slot is masked.
    pub(super) fn next_message(&mut self, trigger: Trigger) -> Option<MsiMessage> {
        if self.masked || self.raised == self.told {
            return None;
        }
        self.told = self.raised;
        let [first, second] = self.messages;
        let [low, high, data] = if self.raised { first } else { second };
        if trigger == Trigger::Edge {
            self.forget();
        }
        Some(MsiMessage { address: u64::from(high) << 32 | u64::from(low), data })
    }

    pub(super) fn read(&self, at: SlotWord) -> u32 {
        let words = self.messages.get(at.message);
        let word = words.and_then(|words| words.get(at.word)).copied();
        word.unwrap_or(if at.word == CONTROL { self.masked.into() } else { 0 })
    }

    pub(super) fn write(&mut self, config: PlatformDeviceConfig, at: SlotWord, value: u32) {
        let value = match at.word {
            CONTROL if at.message == 0 => return self.control(config, value),
            HIGH if config.address == AddressWidth::Bits32 => 0,
            DATA if config.data == DataWidth::Bits16 => value & 0xffff,
            _ => value,
        };
        let is_staged = at.message == 0 && is_staged(config.rewrite, at.word);
        let words =
            if is_staged { Some(&mut self.staged) } else { self.messages.get_mut(at.message) };
        if let Some(word) = words.and_then(|words| words.get_mut(at.word)) {
            *word = value;
        }
    }

    fn control(&mut self, config: PlatformDeviceConfig, value: u32) {
        self.masked = config.rewrite == Rewrite::Masked && value & MASK != 0;
        if value & COMMIT != 0 {
            let [first, _] = &mut self.messages;
            let words = first.iter_mut().zip(self.staged).enumerate();
            for (_, (word, staged)) in words.filter(|(word, _)| is_staged(config.rewrite, *word)) {
                *word = staged;
            }
        }
    }
}

/// Returns `true` if a written word doesn't take effect until the commit.
fn is_staged(rewrite: Rewrite, word: usize) -> bool {
    match rewrite {
        Rewrite::Atomic64 => true,
        Rewrite::AddressOnly => word != DATA,
        Rewrite::Masked | Rewrite::LowWordOnly | Rewrite::Never => false,
    }
}
