//! A PCI function's MSI-X table and pending bits, as a monitor shows them to a guest.
//!
//! The guest writes messages, masks and unmasks; the device sends by vector number
//! ([`MsixTable::signal`]), from any thread. Each vector that may send has a GSI, routed to its
//! message:
//!
//! - A GSI is allocated when its vector is unmasked for the first time, so that a device with
//!   thousands of vectors takes as many GSIs as its driver uses. The table releases its GSIs when
//!   the guest disables MSI-X, and those of masked vectors also when no other GSI is left.
//! - One access of the guest commits its changes of routes at once; an unchanged message is no
//!   change.
//! - A message of a masked vector becomes pending. It is sent on unmask, unless the device
//!   withdraws it before ([`MsixTable::withdraw`]).
//!
//! When a write that masks returns, no message of that vector is being sent, nor will be. Writing
//! the message of an unmasked vector, which the specification leaves undefined, takes effect with
//! the write.
//!
//! # Saving and restoring
//! A table is saved as the guest reads it: every entry ([`MsixTable::read`]), the pending bits
//! ([`MsixTable::read_pending`]) and Message Control ([`MsixTable::control`]). It is restored into
//! a new table in this order: the entries ([`MsixTable::write`]), each pending vector
//! ([`MsixTable::signal`]), and last Message Control ([`MsixTable::write_control`]), which sends
//! what is pending and not masked. GSIs are not part of it: the restored table takes its own.
//!
//! ```
//! # use irq_routing::msix::{MsixTable, Signalled};
//! # use irq_routing::{GsiSpace, Inputs, Router, Sender};
//! # use msi_types::{Delivery, DeviceId, Level, Line, SetLine};
//! # use msi_types::pci::msix::Control;
//! # use std::sync::Arc;
//! # struct Gic;
//! # impl SetLine for Gic {
//! #     fn set_line(&self, _: Line, _: Level) -> Delivery { Delivery::Blocked }
//! #     fn pulse(&self, _: Line) -> Delivery { Delivery::Blocked }
//! # }
//! # let router = Arc::new(Router::new(GsiSpace::default(), Inputs::new(Arc::new(Gic)))?);
//! # let new = || MsixTable::new(2, Sender::Device(DeviceId::new(8)), router.clone());
//! # let table = new()?;
//! # table.write_control(Control::new().with_enable(true))?;
//! # table.write(0x10, &0x0809_0040u64.to_le_bytes())?;
//! # assert_eq!(table.signal(1), Signalled::Held);
//! let (mut entries, mut pending) = ([0; 2 * 16], [0; 8]);
//! for (word, at) in entries.chunks_mut(8).zip((0..).step_by(8)) {
//!     table.read(at, word);
//! }
//! table.read_pending(0, &mut pending);
//! let control = table.control();
//!
//! let restored = new()?;
//! for (word, at) in entries.chunks(8).zip((0..).step_by(8)) {
//!     restored.write(at, word)?;
//! }
//! for vector in (0..2).filter(|vector| u64::from_le_bytes(pending) >> vector & 1 != 0) {
//!     restored.signal(vector);
//! }
//! restored.write_control(control)?;
//! # let mut again = ([0; 8], [0; 8]);
//! # restored.read(0x10, &mut again.0);
//! # restored.read_pending(0, &mut again.1);
//! # assert_eq!((u64::from_le_bytes(again.0), u64::from_le_bytes(again.1)), (0x0809_0040, 2));
//! # assert!(restored.control().enable());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
//! table.write_control(Control::new().with_enable(true))?; // the guest's driver
//! table.write(0x10, &0x0809_0040u64.to_le_bytes())?; // vector 1: its address,
//! table.write(0x18, &3u64.to_le_bytes())?; // its data, and unmasked
//!
//! assert_eq!(table.signal(0), Signalled::Held); // the device
//! assert_eq!(table.signal(1), Signalled::Sent(Delivery::Pending));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod guest;
pub(crate) mod vector;

use crate::lock::{self, Mutex};
use crate::{Change, RouteError, Routing, Sender};
use access::{read_words, words_at};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use guest::{Entry, Guest, WORDS};
use msi_types::pci::MSIX_MAX_VECTORS;
use msi_types::pci::msix::Control;
use msi_types::{Delivery, Gsi};
use vector::{Entered, MsixVector};

/// A number that is no table's size. The monitor's mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an MSI-X table has 1 to 2048 vectors, not {0}")]
pub struct BadTableSize(pub u16);

/// Result of a device's message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Signalled {
    /// It was sent.
    Sent(Delivery),
    /// The vector is masked: it is pending.
    Held,
    /// The table has no such vector.
    NoSuchVector,
}

/// Observer of the vectors that may send: a monitor binds eventfds to their GSIs, or hands them to
/// the kernel. Called during the guest's access: must not call the table.
pub trait VectorObserver: Send + Sync {
    /// The vector sends by this GSI from now on, even if the observer cannot bind an eventfd. The
    /// device must then call [`MsixTable::signal`] instead of writing to the eventfd.
    fn opened(&self, vector: u16, gsi: Gsi);
    /// The vector sends no more. On return, nothing may signal the GSI any more: it may be given to
    /// others. The device must call [`MsixTable::signal`] from now on.
    fn closed(&self, vector: u16, gsi: Gsi);
}

/// A function's MSI-X table, and its pending bits.
pub struct MsixTable {
    vectors: Box<[MsixVector]>,
    routing: Arc<dyn Routing>,
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
        routing: Arc<dyn Routing>,
    ) -> Result<Self, BadTableSize> {
        if !(1..=MSIX_MAX_VECTORS).contains(&vectors) {
            return Err(BadTableSize(vectors));
        }
        let guest = Mutex::new(Guest::new(vectors, sender));
        let vectors = (0..vectors).map(|_| MsixVector::new()).collect();
        Ok(Self { vectors, routing, observer: None, guest, idle: lock::WaitQueue::default() })
    }

    /// Adds an observer of the vectors that may send.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn VectorObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Sends a vector's message for the device. Any thread; takes no lock and allocates nothing
    /// beyond [`Routing::signal`]: a [`Router`](crate::Router) takes none either, the kernel takes
    /// its table's.
    pub fn signal(&self, vector: u16) -> Signalled {
        let Some(word) = self.vectors.get(usize::from(vector)) else {
            return Signalled::NoSuchVector;
        };
        match word.enter() {
            Entered::Held => Signalled::Held,
            Entered::Open(gsi) => {
                let delivery = self.routing.signal(gsi).unwrap_or(Delivery::NoDoorbell);
                word.leave(&self.idle);
                Signalled::Sent(delivery)
            }
        }
    }

    /// Withdraws a vector's pending message for the device, whose reason is gone. A message that
    /// was sent stays sent. Any thread; takes no lock.
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
        read_words(offset, bytes, |index| {
            let bits = self.vectors.iter().skip(index * 32).take(32).map(MsixVector::is_pending);
            let word =
                bits.enumerate().fold(0, |word, (bit, pending)| word | u32::from(pending) << bit);
            (index < words).then_some(word)
        });
    }

    /// Returns Message Control, as the guest reads it.
    pub fn control(&self) -> Control {
        self.guest.lock().control
    }

    /// Returns the GSI by which a vector sends; `None` while it does not.
    pub fn gsi(&self, vector: u16) -> Option<Gsi> {
        let guest = self.guest.lock();
        guest.entries.get(usize::from(vector)).filter(|entry| entry.open)?.gsi
    }

    /// Writes the table for the guest: 4 or 8 bytes, aligned; anything else is ignored. Waits for
    /// threads that are sending by a vector that the write masks.
    ///
    /// # Errors
    /// A vector is not masked any more, but could not be given a GSI or a route: the monitor's
    /// limits, which are no affair of the guest. Its messages are held as pending, until an access
    /// concerns it again and there is room.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), RouteError> {
        let Some(words) = words_at(offset, bytes.len()) else { return Ok(()) };
        let mut guest = self.guest.lock();
        let vector = words.start / WORDS;
        let Some(entry) = guest.entries.get_mut(vector) else { return Ok(()) };
        for (index, value) in words.zip(bytes.as_chunks().0) {
            entry.write(index % WORDS, u32::from_le_bytes(*value));
        }
        self.settle(&mut guest, vector..vector + 1)
    }

    /// Writes Message Control for the guest: the enable bit and the function mask. Waits as
    /// [`write`](Self::write) does.
    ///
    /// # Errors
    /// As [`write`](Self::write), for any of the vectors.
    pub fn write_control(&self, control: Control) -> Result<(), RouteError> {
        let mut guest = self.guest.lock();
        guest.write_control(control);
        self.settle_all(&mut guest)
    }

    /// Sets the sender of later messages: a function's bus got another number.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn set_sender(&self, sender: Sender) -> Result<(), RouteError> {
        let mut guest = self.guest.lock();
        guest.sender = sender;
        self.settle_all(&mut guest)
    }

    /// Resets the function: disabled, all vectors masked, no message stored or pending.
    ///
    /// # Errors
    /// The routing refuses to take its GSIs back.
    pub fn reset(&self) -> Result<(), RouteError> {
        let mut guest = self.guest.lock();
        guest.reset();
        let settled = self.settle_all(&mut guest);
        self.vectors.iter().for_each(MsixVector::forget);
        settled
    }

    fn settle_all(&self, guest: &mut Guest) -> Result<(), RouteError> {
        self.settle(guest, 0..guest.entries.len())
    }

    /// Brings these vectors in line with the guest's writes: closes vectors, commits routes as one
    /// change, opens vectors.
    fn settle(&self, guest: &mut Guest, vectors: Range<usize>) -> Result<(), RouteError> {
        let (control, sender) = (guest.control, guest.sender);
        self.close_unless(guest, vectors.clone(), |entry| entry.is_let_by(control));
        if !control.enable() {
            return self.release(guest);
        }
        let (changes, refused) = self.plan(guest, vectors.clone());
        let committed =
            if changes.is_empty() { Ok(()) } else { self.routing.commit(&changes).map(drop) };
        match committed {
            Ok(()) => guest.note_routes(vectors.clone()),
            Err(_) => self.close_unless(guest, vectors.clone(), |entry| entry.is_routed(sender)),
        }
        self.open_routed(guest, vectors);
        refused.map_or(committed, Err)
    }

    fn close_unless(
        &self,
        guest: &mut Guest,
        range: Range<usize>,
        may_send: impl Fn(&Entry) -> bool,
    ) {
        for (at, vector, entry) in self.each(&mut guest.entries, range) {
            if entry.open && !may_send(entry) {
                vector.close(&self.idle);
                entry.open = false;
                self.tell(entry.gsi, |observer, gsi| observer.closed(at, gsi));
            }
        }
    }

    /// Returns the changes to commit, and the reason if a vector cannot have a GSI.
    fn plan(&self, guest: &mut Guest, range: Range<usize>) -> (Vec<Change>, Option<RouteError>) {
        let mut changes = Vec::new();
        let mut refused = None;
        for at in range {
            let Some(route) = guest.route_to_make(at) else { continue };
            let gsi = match guest.gsi(at) {
                None if refused.is_some() => continue,
                None => self.give(guest, at),
                Some(gsi) => Ok(gsi),
            };
            match gsi {
                Ok(gsi) => changes.push(Change::Set(gsi, route)),
                Err(error) => refused = Some(error),
            }
        }
        (changes, refused)
    }

    /// Allocates a GSI for a vector. If there is none, releases those of the table's masked vectors
    /// first.
    fn give(&self, guest: &mut Guest, at: usize) -> Result<Gsi, RouteError> {
        let gsi = match self.routing.allocate() {
            Err(RouteError::GsisExhausted { .. }) => {
                self.release(guest)?;
                self.routing.allocate()?
            }
            given => given?,
        };
        guest.give(at, gsi);
        Ok(gsi)
    }

    /// Releases the GSIs of vectors that do not send, and do not want to.
    fn release(&self, guest: &mut Guest) -> Result<(), RouteError> {
        let idle = guest.idle_gsis();
        if !idle.is_empty() {
            self.routing.release(&idle)?;
            guest.take_idle();
        }
        Ok(())
    }

    /// Opens the vectors that may send and whose routes are set.
    fn open_routed(&self, guest: &mut Guest, range: Range<usize>) {
        let (control, sender) = (guest.control, guest.sender);
        for (at, vector, entry) in self.each(&mut guest.entries, range) {
            let may_send = entry.is_let_by(control) && entry.is_routed(sender);
            let Some(gsi) = entry.gsi.filter(|_| may_send && !entry.open) else { continue };
            entry.open = true;
            let pending = vector.open(gsi);
            self.tell(Some(gsi), |observer, gsi| observer.opened(at, gsi));
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

    fn tell(&self, gsi: Option<Gsi>, what: impl FnOnce(&dyn VectorObserver, Gsi)) {
        if let (Some(observer), Some(gsi)) = (&self.observer, gsi) {
            what(&**observer, gsi);
        }
    }
}

impl Drop for MsixTable {
    fn drop(&mut self) {
        // The routing's refusal has no one to be reported to.
        let _ = self.reset();
    }
}

impl fmt::Debug for MsixTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guest = self.guest.lock();
        f.debug_struct("MsixTable")
            .field("control", &guest.control)
            .field("sender", &guest.sender)
            .field("gsis", &guest.given)
            .finish_non_exhaustive()
    }
}
