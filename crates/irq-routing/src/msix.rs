//! A PCI function's MSI-X table and pending bits, as a monitor shows them to a guest.
//!
//! The guest writes messages, masks and unmasks; the device sends by vector number
//! ([`MsixTable::signal`]), from any thread:
//!
//! - A message goes to the interrupt controller as it is ([`MessageSink`]). No vector takes a GSI
//!   or a route, so neither can run out.
//! - A message of a masked vector becomes pending. It is sent on unmask, unless the device
//!   withdraws it before ([`MsixTable::withdraw`]).
//! - A device in the kernel or in another process sends by an eventfd. A [`VectorObserver`] tells
//!   the monitor which message each eventfd stands for; `kvm::MsiIrqfdSet` takes it from there.
//!
//! When a write that masks returns, no message of that vector is being sent, nor will be. Writing
//! the message of an unmasked vector, which the specification leaves undefined, takes effect with
//! the write.
//!
//! Source: PCI Local Bus 3.0 §6.8.2 and §6.8.3, PCI Express Base §7.7.2.
//!
//! ```
//! use irq_routing::msix::{MsixTable, Signalled};
//! use irq_routing::{GsiSpace, Inputs, Router, Sender};
//! use msi_types::pci::msix::Control;
//! use msi_types::{Delivery, DeviceId, Level, Line, MsiMessage, SetLine, SignalMsi};
//! use std::sync::Arc;
//!
//! # struct Gic;
//! # impl SetLine for Gic {
//! #     fn set_line(&self, _: Line, _: Level) -> Delivery { Delivery::Blocked }
//! #     fn pulse(&self, _: Line) -> Delivery { Delivery::Blocked }
//! # }
//! # impl SignalMsi<DeviceId> for Gic {
//! #     fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
//! #         assert_eq!((from, message.data), (DeviceId::new(8), 3));
//! #         Delivery::Pending
//! #     }
//! # }
//! let inputs = Inputs::new(Arc::new(Gic)).with_its(Arc::new(Gic));
//! let router = Arc::new(Router::new(GsiSpace::default(), inputs)?);
//! let table = MsixTable::new(32, Sender::Device(DeviceId::new(8)), router)?;
//!
//! table.write_control(Control::new().with_enable(true)); // the guest's driver
//! table.write(0x10, &0x0809_0040u64.to_le_bytes()); // vector 1: its address,
//! table.write(0x18, &3u64.to_le_bytes()); // its data, and unmasked
//!
//! assert_eq!(table.signal(0), Signalled::Held); // the device
//! assert_eq!(table.signal(1), Signalled::Sent(Delivery::Pending));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod guest;
mod saved_state;
pub(crate) mod vector;

use crate::lock::{self, Mutex};
use crate::{MessageSink, RoutedMessage, Sender, SignalError};
use access::{read_words, words_at};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use guest::{Entry, Guest, WORDS};
use msi_types::Delivery;
use msi_types::pci::MSIX_MAX_VECTORS;
use msi_types::pci::msix::Control;
use vector::{Entered, MsixVector};

/// A number that is no table's size. The monitor's mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an MSI-X table has 1 to 2048 vectors, not {0}")]
pub struct BadTableSize(pub u16);

/// Result of a device's message.
#[doc(alias = "kvm_set_irq")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Signalled {
    /// It was sent.
    Sent(Delivery),
    /// The kernel refused it.
    Refused(SignalError),
    /// The vector is masked: it is pending.
    Held,
    /// The guest has disabled MSI: the function signals by its pin instead. (A message of a table
    /// of MSI-X is held.)
    Disabled,
    /// The table has no such vector.
    NoSuchVector,
}

/// Observer of the vectors that may send, for devices that send by eventfds. Called during the
/// guest's access: must not call the table, but for [`MsixTable::signal`].
pub trait VectorObserver: Send + Sync {
    /// The vector sends this message from now on.
    fn opened(&self, vector: u16, message: RoutedMessage);
    /// The vector sends no more. On return, nothing may send its message any more. A device that
    /// must send meanwhile calls [`MsixTable::signal`].
    fn closed(&self, vector: u16);
    /// Takes a signal of a closed vector's own eventfd, which then becomes pending: asked before
    /// pending bits are read or saved. Returns true if there was one.
    fn take_signal(&self, _vector: u16) -> bool {
        false
    }
}

/// A function's MSI-X table, and its pending bits.
pub struct MsixTable {
    vectors: Box<[MsixVector]>,
    sink: Arc<dyn MessageSink>,
    observer: Option<Arc<dyn VectorObserver>>,
    guest: Mutex<Guest>,
    /// Wakes the thread that closes a vector, when the last sender has left.
    idle: lock::WaitQueue,
}

impl MsixTable {
    /// Creates a table as after reset: disabled, every vector masked.
    ///
    /// # Errors
    /// [`BadTableSize`].
    pub fn new(
        vectors: u16,
        sender: Sender,
        sink: Arc<dyn MessageSink>,
    ) -> Result<Self, BadTableSize> {
        if !(1..=MSIX_MAX_VECTORS).contains(&vectors) {
            return Err(BadTableSize(vectors));
        }
        let guest = Mutex::new(Guest::new(vectors, sender));
        let vectors = (0..vectors).map(|_| MsixVector::new()).collect();
        Ok(Self { vectors, sink, observer: None, guest, idle: lock::WaitQueue::default() })
    }

    /// Adds an observer of the vectors that may send.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn VectorObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Sends a vector's message for the device. Acquires no lock and does not allocate, and neither
    /// does [`MessageSink::signal_msi`].
    ///
    /// Context: any.
    pub fn signal(&self, vector: u16) -> Signalled {
        let Some(word) = self.vectors.get(usize::from(vector)) else {
            return Signalled::NoSuchVector;
        };
        match word.enter() {
            Entered::Held => Signalled::Held,
            Entered::Open(message) => {
                let sent = self.sink.signal_msi(message);
                word.leave(&self.idle);
                sent.map_or_else(Signalled::Refused, Signalled::Sent)
            }
        }
    }

    /// Withdraws a vector's pending message for the device after its cause has ceased. A message
    /// that was already sent is not affected. Acquires no lock.
    ///
    /// Context: any.
    pub fn withdraw(&self, vector: u16) {
        if let Some(word) = self.vectors.get(usize::from(vector)) {
            word.forget();
        }
    }

    /// Reads the table for the guest: 4 or 8 bytes, aligned. Anything else reads as ones.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        let guest = self.guest.lock();
        read_words(offset, bytes, |index| guest.entries.get(index / WORDS)?.read(index % WORDS));
    }

    /// Reads the pending bits for the guest: 4 or 8 bytes, aligned. Anything else reads as ones.
    /// (Writes have no effect.)
    pub fn read_pending(&self, offset: u64, bytes: &mut [u8]) {
        let words = self.vectors.len().div_ceil(64) * 2;
        read_words(offset, bytes, |index| (index < words).then(|| self.pending_word(index)));
    }

    /// Returns the pending bits of 32 vectors; 0 for those that do not exist.
    pub(crate) fn pending_word(&self, index: usize) -> u32 {
        if self.observer.is_some() {
            self.poll(&self.guest.lock(), index * 32..(index + 1) * 32);
        }
        let bits = self.vectors.iter().skip(index * 32).take(32).map(MsixVector::is_pending);
        bits.enumerate().fold(0, |word, (bit, pending)| word | u32::from(pending) << bit)
    }

    /// Returns Message Control, as the guest reads it.
    pub fn control(&self) -> Control {
        self.guest.lock().control
    }

    /// Returns the message that a vector sends; `None` while it does not.
    pub fn message(&self, vector: u16) -> Option<RoutedMessage> {
        self.guest.lock().entries.get(usize::from(vector))?.open
    }

    /// Writes the table for the guest: 4 or 8 bytes, aligned; anything else is ignored. Waits for
    /// threads that are sending by a vector that the write masks.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let Some(words) = words_at(offset, bytes.len()) else { return };
        let mut guest = self.guest.lock();
        let vector = words.start / WORDS;
        let Some(entry) = guest.entries.get_mut(vector) else { return };
        for (index, value) in words.zip(bytes.as_chunks().0) {
            entry.write(index % WORDS, u32::from_le_bytes(*value));
        }
        self.settle(&mut guest, vector..vector + 1);
    }

    /// Writes Message Control for the guest: the enable bit and the function mask. Waits as
    /// [`write`](Self::write) does.
    pub fn write_control(&self, control: Control) {
        let mut guest = self.guest.lock();
        guest.write_control(control);
        self.settle_all(&mut guest);
    }

    /// Replaces Message Control and every entry, as one write.
    pub(crate) fn replace(&self, control: Control, entry: impl Fn(u16) -> [u32; WORDS]) {
        let mut guest = self.guest.lock();
        guest.write_control(control);
        for (vector, place) in (0..).zip(&mut guest.entries) {
            place.set_words(entry(vector));
        }
        self.settle_all(&mut guest);
    }

    /// Sets the sender of later messages: a function's bus got another number.
    pub fn set_sender(&self, sender: Sender) {
        let mut guest = self.guest.lock();
        guest.sender = sender;
        self.settle_all(&mut guest);
    }

    /// Resets the function: disabled, all vectors masked, no message stored or pending.
    pub fn reset(&self) {
        self.forget_all(&mut self.guest.lock());
    }

    /// Resets, and takes what closed vectors' eventfds hold.
    fn forget_all(&self, guest: &mut Guest) {
        guest.reset();
        self.settle_all(guest);
        self.poll(guest, 0..guest.entries.len());
        self.vectors.iter().for_each(MsixVector::forget);
    }

    /// Makes pending what closed vectors' eventfds hold.
    fn poll(&self, guest: &Guest, range: Range<usize>) {
        let Some(observer) = &self.observer else { return };
        let vectors = (0..).zip(&self.vectors).zip(&guest.entries);
        for ((at, vector), entry) in vectors.skip(range.start).take(range.len()) {
            if entry.open.is_none() && observer.take_signal(at) {
                // The vector is closed.
                vector.enter();
            }
        }
    }

    fn settle_all(&self, guest: &mut Guest) {
        self.settle(guest, 0..guest.entries.len());
    }

    /// Brings these vectors in line with the guest's writes: first closes vectors, then opens
    /// others, and sends what was pending.
    fn settle(&self, guest: &mut Guest, range: Range<usize>) {
        let (control, sender) = (guest.control, guest.sender);
        for (at, vector, entry) in self.each(&mut guest.entries, range.clone()) {
            if entry.open.is_some() && entry.open != entry.allowed(control, sender) {
                vector.close(&self.idle);
                entry.open = None;
                self.tell(|observer| observer.closed(at));
            }
        }
        for (at, vector, entry) in self.each(&mut guest.entries, range) {
            let allowed = entry.allowed(control, sender);
            let Some(message) = allowed.filter(|_| entry.open.is_none()) else { continue };
            entry.open = allowed;
            let pending = vector.open(message);
            self.tell(|observer| observer.opened(at, message));
            if pending {
                self.signal(at);
            }
        }
    }

    fn each<'a>(
        &'a self,
        entries: &'a mut [Entry],
        range: Range<usize>,
    ) -> impl Iterator<Item = (u16, &'a MsixVector, &'a mut Entry)> {
        let numbers = (0..=u16::MAX).skip(range.start);
        let vectors = self.vectors.get(range.clone()).unwrap_or_default();
        let entries = entries.get_mut(range).unwrap_or_default();
        numbers.zip(vectors).zip(entries).map(|((at, vector), entry)| (at, vector, entry))
    }

    fn tell(&self, what: impl FnOnce(&dyn VectorObserver)) {
        if let Some(observer) = &self.observer {
            what(&**observer);
        }
    }
}

impl Drop for MsixTable {
    fn drop(&mut self) {
        self.reset();
    }
}

impl fmt::Debug for MsixTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guest = self.guest.lock();
        f.debug_struct("MsixTable")
            .field("control", &guest.control)
            .field("sender", &guest.sender)
            .field("open", &guest.entries.iter().filter(|entry| entry.open.is_some()).count())
            .finish_non_exhaustive()
    }
}
