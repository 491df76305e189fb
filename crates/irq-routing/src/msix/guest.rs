//! The table as the guest has written it, and the routes that follow from it.

use crate::{Route, RoutedMessage, Sender};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use msi_types::pci::msix::{Control, VectorControl};
use msi_types::{Gsi, MsiMessage};

/// Indices of an entry's words.
const ADDRESS_LOW: usize = 0;
const ADDRESS_HIGH: usize = 1;
const DATA: usize = 2;
/// Words of an entry; the last is [`VectorControl`].
pub(super) const WORDS: usize = 4;

/// The table and Message Control.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) control: Control,
    pub(super) sender: Sender,
    pub(super) entries: Vec<Entry>,
    /// Entries that have a GSI.
    pub(super) given: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    words: [u32; WORDS],
    pub(super) gsi: Option<Gsi>,
    /// Current route of the GSI.
    pub(super) routed: Option<Route>,
    /// The vector may send.
    pub(super) open: bool,
}

const MASKED: u32 = VectorControl::new().with_masked(true).into_bits();

impl Guest {
    /// Creates the registers as after reset.
    pub(super) fn new(vectors: u16, sender: Sender) -> Self {
        let control = Control::new().with_table_size_minus_one(vectors.saturating_sub(1));
        let entry = Entry { words: [0, 0, 0, MASKED], gsi: None, routed: None, open: false };
        Self { control, sender, entries: vec![entry; vectors.into()], given: 0 }
    }

    /// Resets the guest's registers; [`settle`](super::MsixTable::settle) does the rest.
    pub(super) fn reset(&mut self) {
        self.write_control(Control::new());
        for entry in &mut self.entries {
            entry.words = [0, 0, 0, MASKED];
        }
    }

    /// Writes the two bits of Message Control that are writable.
    pub(super) fn write_control(&mut self, control: Control) {
        self.control =
            self.control.with_enable(control.enable()).with_function_mask(control.function_mask());
    }

    pub(super) fn give(&mut self, at: usize, gsi: Gsi) {
        if let Some(entry) = self.entries.get_mut(at) {
            entry.gsi = Some(gsi);
            self.given += 1;
        }
    }

    /// Notes that the GSIs of [`idle_gsis`](Self::idle_gsis) are released.
    pub(super) fn take_idle(&mut self) {
        let control = self.control;
        for entry in self.entries.iter_mut().filter(|entry| entry.is_idle(control)) {
            self.given -= usize::from(entry.gsi.is_some());
            (entry.gsi, entry.routed) = (None, None);
        }
    }

    /// Notes that the routes of these entries are set.
    pub(super) fn note_routes(&mut self, range: Range<usize>) {
        let (control, sender) = (self.control, self.sender);
        let entries = self.entries.get_mut(range).unwrap_or_default();
        for entry in
            entries.iter_mut().filter(|entry| entry.gsi.is_some() && entry.is_let_by(control))
        {
            entry.routed = Some(entry.route(sender));
        }
    }

    /// Returns the GSIs of vectors that do not send, and do not want to.
    pub(super) fn idle_gsis(&self) -> Vec<Gsi> {
        if self.given == 0 {
            return Vec::new();
        }
        self.entries
            .iter()
            .filter(|entry| entry.is_idle(self.control))
            .filter_map(|entry| entry.gsi)
            .collect()
    }

    pub(super) fn gsi(&self, at: usize) -> Option<Gsi> {
        self.entries.get(at)?.gsi
    }

    /// Returns the route that an entry's GSI must get; `None` if it has it already, or needs none.
    pub(super) fn route_to_make(&self, at: usize) -> Option<Route> {
        let entry = self.entries.get(at).filter(|entry| entry.is_let_by(self.control))?;
        Some(entry.route(self.sender)).filter(|_| !entry.is_routed(self.sender))
    }
}

impl Entry {
    /// Writes a word: reserved bits stay 0.
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

    pub(super) fn read(&self, word: usize) -> Option<u32> {
        self.words.get(word).copied()
    }

    /// Returns the route of the message that the guest has written.
    fn route(&self, sender: Sender) -> Route {
        let [low, high, data, _] = self.words;
        let message = MsiMessage { address: u64::from(high) << 32 | u64::from(low), data };
        Route::Message(RoutedMessage { sender, message })
    }

    /// Returns true if nothing masks the entry.
    pub(super) fn is_let_by(&self, control: Control) -> bool {
        let [.., vector] = self.words;
        control.enable() && !control.function_mask() && !VectorControl::from_bits(vector).masked()
    }

    /// Returns true if the entry's GSI is routed to its message.
    pub(super) fn is_routed(&self, sender: Sender) -> bool {
        self.routed == Some(self.route(sender))
    }

    fn is_idle(&self, control: Control) -> bool {
        !self.open && !self.is_let_by(control)
    }
}
