//! The table as the guest has written it, and the resulting messages.

use crate::config_space::BusMaster;
use crate::{RoutedMessage, Sender};
use alloc::vec;
use alloc::vec::Vec;
use msi_types::MsiMessage;
use msi_types::pci::msix::{Control, VectorControl};

/// Indices of the words of an entry.
const ADDRESS_LOW: usize = 0;
const ADDRESS_HIGH: usize = 1;
const DATA: usize = 2;
/// Number of words in an entry; the last one is [`VectorControl`].
pub(super) const WORDS: usize = 4;

/// The guest's table and Message Control.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) control: Control,
    pub(super) bus_master: BusMaster,
    pub(super) sender: Sender,
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    words: [u32; WORDS],
    /// The vector's message, or `None` while it is closed.
    pub(super) open: Option<RoutedMessage>,
}

const MASKED: u32 = VectorControl::new().with_masked(true).into_bits();

impl Guest {
    /// Creates the registers in their reset state.
    pub(super) fn new(vectors: u16, sender: Sender) -> Self {
        let control = Control::new().with_table_size_minus_one(vectors.saturating_sub(1));
        let entry = Entry { words: [0, 0, 0, MASKED], open: None };
        let entries = vec![entry; vectors.into()];
        Self { control, bus_master: BusMaster::Enabled, sender, entries }
    }

    /// Resets the registers. The caller must then call [`apply`](super::MsixTable::apply) to
    /// close the vectors.
    pub(super) fn reset(&mut self) {
        self.write_control(Control::new());
        for entry in &mut self.entries {
            entry.words = [0, 0, 0, MASKED];
        }
    }

    /// Writes the two writable bits of Message Control.
    pub(super) fn write_control(&mut self, control: Control) {
        self.control =
            self.control.with_enable(control.enable()).with_function_mask(control.function_mask());
    }

    /// Returns Message Control as it affects the vectors: a function that is not a bus master holds
    /// back all messages, as if its Function Mask were set.
    pub(super) fn effective_control(&self) -> Control {
        let held = self.control.function_mask() || self.bus_master == BusMaster::Disabled;
        self.control.with_function_mask(held)
    }
}

impl Entry {
    /// Writes a word. Reserved bits stay 0.
    pub(super) fn write(&mut self, word: usize, value: u32) {
        let writable = match word {
            ADDRESS_LOW => !0b11,
            ADDRESS_HIGH | DATA => !0,
            _ => MASKED,
        };
        if let Some(place) = self.words.get_mut(word) {
            *place = value & writable;
        }
    }

    /// Returns the first register of an entry in which a read-only bit is set, and those bits.
    pub(super) fn reserved_bits(words: [u32; WORDS]) -> Option<(&'static str, u32)> {
        let [low, .., vector] = words;
        let reserved = [("Message Address", low & 0b11), ("Vector Control", vector & !MASKED)];
        reserved.into_iter().find(|(_, bits)| *bits != 0)
    }

    pub(super) fn words(&self) -> [u32; WORDS] {
        self.words
    }

    /// Writes all words of the entry.
    pub(super) fn set_words(&mut self, words: [u32; WORDS]) {
        (0..).zip(words).for_each(|(word, value)| self.write(word, value));
    }

    pub(super) fn read(&self, word: usize) -> Option<u32> {
        self.words.get(word).copied()
    }

    /// Returns the message that the vector may send, or `None` if the vector is masked or MSI-X is
    /// disabled.
    pub(super) fn allowed(&self, control: Control, sender: Sender) -> Option<RoutedMessage> {
        let is_masked = control.function_mask() || self.is_masked();
        let routed = RoutedMessage { sender, message: self.message() };
        (control.enable() && !is_masked).then_some(routed)
    }

    /// Returns `true` if the entry's own mask bit is set.
    pub(super) fn is_masked(&self) -> bool {
        VectorControl::from_bits(self.words[3]).masked()
    }

    pub(super) fn message(&self) -> MsiMessage {
        let [low, high, data, _] = self.words;
        MsiMessage { address: u64::from(high) << 32 | u64::from(low), data }
    }
}
