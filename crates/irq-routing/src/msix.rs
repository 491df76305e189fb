//! A PCI function's MSI-X table and pending bits, as a VMM presents them to a guest.
//!
//! The guest writes messages and masks and unmasks vectors; the device signals vectors by number
//! ([`MsixTable::signal`]), from any thread:
//!
//! - A message is sent to the interrupt controller unchanged ([`MessageSink`]). Vectors don't use
//!   GSIs or routes, so the limits of both don't apply to vectors.
//! - If a vector is masked, its message becomes pending. The message is sent when the vector is
//!   unmasked, unless the device withdraws it first ([`MsixTable::withdraw`]).
//! - A device in the kernel or in another process signals through an eventfd. A [`VectorObserver`]
//!   learns which message each vector currently sends, and has the eventfd send it;
//!   `device_eventfds` is one implementation.
//! - The guest enables MSI-X in the capability, by accesses of any size
//!   ([`MsixTable::write_capability`]). While the function is not a bus master, its messages become
//!   pending ([`MsixTable::set_bus_master`]).
//!
//! When a write that masks a vector returns, no thread is sending the vector's message, and none
//! will until the vector is open again. The specification leaves writes to an unmasked vector's
//! message undefined; here, they take effect immediately.
//!
//! Source: PCI Local Bus 3.0 §6.8.2 and §6.8.3, PCI Express Base §7.7.2.
//!
//! ```
//! use irq_routing::msix::{MsixTable, Signaled};
//! use irq_routing::{GsiSpace, Inputs, Router, Sender};
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
//! table.write_capability(0x02, &0x8000u16.to_le_bytes()); // the guest's driver enables MSI-X,
//! table.write(0x10, &0x0809_0040u64.to_le_bytes()); // writes the address of vector 1,
//! table.write(0x18, &3u64.to_le_bytes()); // writes its data and unmasks it
//!
//! assert_eq!(table.signal(0), Signaled::Held); // the device signals
//! assert_eq!(table.signal(1), Signaled::Sent(Delivery::Pending));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod capability;
mod guest;
mod saved_state;
pub(crate) mod vector;

pub use crate::config_space::{BusMaster, MsixLayout};

use crate::lock::{self, Mutex};
use crate::sync::{AtomicBool, SeqCst};
use crate::{Attachment, MessageSink, RoutedMessage, Sender, SignalError, Unsettled};
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use core::time::Duration;
use guest::{Entry, Guest, WORDS};
use msi_types::Delivery;
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::pci::MSIX_MAX_VECTORS;
use msi_types::pci::msix::{Control, ENTRY_SIZE};
use vector::{Entered, MsixVector};

/// Invalid number of vectors for an MSI-X table. The VMM is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an MSI-X table has 1 to 2048 vectors, not {0}")]
pub struct BadTableSize(pub u16);

/// Outcome of a vector's signal.
#[doc(alias = "kvm_set_irq")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Signaled {
    /// The message was sent.
    Sent(Delivery),
    /// The kernel refused the message.
    Refused(SignalError),
    /// The vector is masked, so the message is pending.
    Held,
    /// The guest has disabled MSI or MSI-X, so the function must assert its pin instead. After an
    /// MSI capability's signal, the caller must do so; a virtio notifier has already done so. A
    /// disabled MSI-X table holds its messages.
    Disabled,
    /// The table has no such vector.
    NoSuchVector,
}

/// Observer of open vectors, for devices that signal through eventfds. The table calls the observer
/// during guest accesses, with a lock held. The observer must not call any of the table's methods
/// except [`MsixTable::signal`], nor any of a virtio notifier over the table.
pub trait VectorObserver: Send + Sync {
    /// Notifies the observer that a vector is open. From now on, signals of the vector must send
    /// this message.
    fn opened(&self, vector: u16, message: RoutedMessage);
    /// Notifies the observer that a vector is closed. On return, the observer must no longer send
    /// the vector's message. If a device needs to signal in the meantime, it must call
    /// [`MsixTable::signal`], which makes the message pending.
    fn closed(&self, vector: u16);
    /// Consumes a signal from those of a vector's eventfds that nobody else serves, because the
    /// vector is closed or the host refused to bind them. If this returns `true`, the table signals
    /// the vector. The table calls this method before pending bits are read, and before the table
    /// is settled, saved or reset.
    fn take_signal(&self, _vector: u16) -> bool {
        false
    }
    /// Waits until the signals of open vectors' eventfds have been sent; see
    /// [`MsixTable::settle`], which calls this method without a lock.
    ///
    /// # Errors
    /// Returns [`Unsettled`] if a signal is still being served after `limit`.
    fn settle(&self, _limit: Duration) -> Result<(), Unsettled> {
        Ok(())
    }
}

/// A function's MSI-X table with its pending bits.
///
/// The [module's example](self) shows the guest's and the device's side.
pub struct MsixTable {
    vectors: Box<[MsixVector]>,
    sink: Arc<dyn MessageSink>,
    attachment: Attachment,
    observer: Option<Arc<dyn VectorObserver>>,
    layout: MsixLayout,
    /// `true` if the guest has enabled MSI-X. Cleared before the vectors are closed.
    is_enabled: AtomicBool,
    guest: Mutex<Guest>,
    /// Queue of the thread that is closing a vector. The last thread that sends the vector's
    /// message wakes it.
    idle: lock::WaitQueue,
}

impl MsixTable {
    /// Creates a table in its reset state: disabled, with every vector masked.
    ///
    /// # Errors
    /// Returns [`BadTableSize`] if `vectors` is not between 1 and 2048.
    pub fn new(
        vectors: u16,
        sender: Sender,
        sink: Arc<dyn MessageSink>,
    ) -> Result<Self, BadTableSize> {
        if !(1..=MSIX_MAX_VECTORS).contains(&vectors) {
            return Err(BadTableSize(vectors));
        }
        let attachment = sink.attachments().attach(match sender {
            Sender::Device(device) => format!("the function with DeviceID {device:#x}"),
            Sender::Anonymous => "a function without a DeviceID".into(),
        });
        let guest = Mutex::new(Guest::new(vectors, sender));
        let layout = MsixLayout::of(vectors);
        let vectors = (0..vectors).map(|_| MsixVector::new()).collect();
        let (is_enabled, idle) = (AtomicBool::new(false), lock::WaitQueue::default());
        let observer = None;
        Ok(Self { vectors, sink, attachment, observer, layout, is_enabled, guest, idle })
    }

    /// Returns the table's membership in its sink's [`attachments`](MessageSink::attachments).
    pub const fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Sets the observer of the open vectors.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn VectorObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Sends a vector's message for the device. This method acquires no lock and does not allocate,
    /// and neither must [`MessageSink::signal_msi`].
    ///
    /// Context: any.
    pub fn signal(&self, vector: u16) -> Signaled {
        self.signal_unless(vector, |_| false)
    }

    /// Sends a vector's message like [`signal`](Self::signal), unless `delivers` returns `true`
    /// because it has delivered the message itself. `delivers` must not call any of the table's
    /// methods. It is called at most once, and neither while the vector is masked nor after the
    /// guest has masked it.
    ///
    /// Context: any.
    #[inline]
    pub fn signal_unless(
        &self,
        vector: u16,
        delivers: impl FnOnce(RoutedMessage) -> bool,
    ) -> Signaled {
        let Some(word) = self.vectors.get(usize::from(vector)) else {
            return Signaled::NoSuchVector;
        };
        match word.enter() {
            Entered::Held => Signaled::Held,
            Entered::Open(message) => {
                let is_delivered = delivers(message);
                let sent = if is_delivered {
                    Ok(Delivery::Pending)
                } else {
                    self.sink.signal_msi(message)
                };
                word.leave(&self.idle);
                sent.map_or_else(Signaled::Refused, Signaled::Sent)
            }
        }
    }

    /// Withdraws a vector's pending message, because the device no longer has a reason to signal. A
    /// message that was already sent is not affected. Acquires no lock.
    ///
    /// Context: any.
    pub fn withdraw(&self, vector: u16) {
        if let Some(word) = self.vectors.get(usize::from(vector)) {
            word.forget();
        }
    }

    /// Reads the table for the guest. The access must be aligned and have 4 or 8 bytes; otherwise
    /// it reads as all ones.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        let guest = self.guest.lock();
        read_words(offset, bytes, |index| guest.entries.get(index / WORDS)?.read(index % WORDS));
    }

    /// Reads the pending bits for the guest. The access must be aligned and have 4 or 8 bytes;
    /// otherwise it reads as all ones. (Pending bits are read-only.)
    pub fn read_pending(&self, offset: u64, bytes: &mut [u8]) {
        let words = self.vectors.len().div_ceil(64) * 2;
        read_words(offset, bytes, |index| (index < words).then(|| self.pending_word(index)));
    }

    /// Returns the pending bits of 32 vectors. Bits of vectors that do not exist are 0.
    pub(crate) fn pending_word(&self, index: usize) -> u32 {
        if self.observer.is_some() {
            self.poll(&self.guest.lock(), index * 32..(index + 1) * 32);
        }
        let bits = self.vectors.iter().skip(index * 32).take(32).map(MsixVector::is_pending);
        bits.enumerate().fold(0, |word, (bit, pending)| word | u32::from(pending) << bit)
    }

    /// Returns Message Control as the guest reads it.
    pub fn control(&self) -> Control {
        self.guest.lock().control
    }

    /// Returns `true` if the guest has enabled MSI-X. Acquires no lock.
    pub(crate) fn is_enabled(&self) -> bool {
        self.is_enabled.load(SeqCst)
    }

    /// Returns the message that a vector sends, or `None` while the vector is closed.
    pub fn message(&self, vector: u16) -> Option<RoutedMessage> {
        self.guest.lock().entries.get(usize::from(vector))?.open
    }

    /// Explains why a vector does not interrupt a CPU. Checks the vector's masks and message, and
    /// appends the controller's explanation ([`MessageSink::explain_message`]). Does not change the
    /// vector, whose state may change concurrently.
    pub fn explain(&self, vector: u16) -> Explanation {
        let (routed, explained) = self.examined(vector);
        match routed {
            Some(routed) => explained.merge(self.sink.explain_message(routed)),
            None => explained,
        }
    }

    /// Returns the message that a vector holds, if it holds one, and what keeps the vector from
    /// sending it.
    fn examined(&self, vector: u16) -> (Option<RoutedMessage>, Explanation) {
        let guest = self.guest.lock();
        let (control, index) = (guest.control, usize::from(vector));
        let Some((entry, state)) = guest.entries.get(index).zip(self.vectors.get(index)) else {
            let vectors = control.table_size();
            return (None, Explanation::stopped(Obstacle::NoVector { vector, vectors }));
        };
        let (message, pending) = (entry.message(), state.is_pending());
        let is_stored = message.address != 0;
        let obstacles = [
            (!control.enable()).then_some(Obstacle::MessagesDisabled),
            control.function_mask().then_some(Obstacle::FunctionMasked),
            entry.is_masked().then_some(Obstacle::VectorMasked { vector, pending }),
            (!is_stored).then_some(Obstacle::NoMessage),
            (guest.bus_master == BusMaster::Disabled).then_some(Obstacle::BusMasterDisabled),
        ];
        let explained = Explanation::new().with_obstacles(&obstacles);
        if !is_stored {
            return (None, explained);
        }
        let routed = RoutedMessage { sender: guest.sender, message };
        (Some(routed), explained.with_fact(Fact::Message(message)))
    }

    /// Writes the table for the guest. The access must be aligned and have 4 or 8 bytes; otherwise
    /// it is ignored. If the write masks a vector, waits for threads that are sending its message.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let Some(words) = words_at(offset, bytes.len()) else { return };
        let mut guest = self.guest.lock();
        let vector = words.start / WORDS;
        let Some(entry) = guest.entries.get_mut(vector) else { return };
        for (index, value) in words.zip(bytes.as_chunks().0) {
            entry.write(index % WORDS, u32::from_le_bytes(*value));
        }
        self.apply(&mut guest, vector..vector + 1);
    }

    /// Writes Message Control for the guest: the enable bit and the function mask. Like
    /// [`write`](Self::write), waits for threads that are sending a masked vector's message.
    pub fn write_control(&self, control: Control) {
        let mut guest = self.guest.lock();
        guest.write_control(control);
        self.apply_all(&mut guest);
    }

    /// Replaces Message Control and all entries in a single write.
    pub(crate) fn replace(&self, control: Control, entry: impl Fn(u16) -> [u32; WORDS]) {
        let mut guest = self.guest.lock();
        guest.write_control(control);
        for (vector, place) in (0..).zip(&mut guest.entries) {
            place.set_words(entry(vector));
        }
        self.apply_all(&mut guest);
    }

    /// Sets the sender for later messages, for example after the guest renumbered the function's
    /// bus.
    pub fn set_sender(&self, sender: Sender) {
        let mut guest = self.guest.lock();
        guest.sender = sender;
        self.apply_all(&mut guest);
    }

    /// Resets the table: disables MSI-X, masks all vectors, and clears all messages and pending
    /// bits.
    pub fn reset(&self) {
        self.forget_all(&mut self.guest.lock());
    }

    /// Resets the table and discards pending messages, including signals in eventfds.
    fn forget_all(&self, guest: &mut Guest) {
        guest.reset();
        self.apply_all(guest);
        self.poll(guest, 0..guest.entries.len());
        self.vectors.iter().for_each(MsixVector::forget);
    }

    /// Signals the vectors whose eventfds hold signals that nobody else serves. Closed vectors
    /// become pending. Callers must hold the lock of the guest's registers, so that no vector is
    /// opened or closed meanwhile.
    fn poll(&self, _guest: &Guest, vectors: Range<usize>) {
        let Some(observer) = &self.observer else { return };
        let numbers = (0..).zip(&self.vectors).skip(vectors.start).take(vectors.len());
        let signaled = numbers.filter(|(vector, _)| observer.take_signal(*vector));
        signaled.for_each(|(vector, _)| _ = self.signal(vector));
    }

    fn apply_all(&self, guest: &mut Guest) {
        self.apply(guest, 0..guest.entries.len());
    }

    /// Applies the guest's writes to the vectors in `range`: first closes vectors, then opens
    /// others and sends their pending messages.
    fn apply(&self, guest: &mut Guest, range: Range<usize>) {
        let (control, sender) = (guest.effective_control(), guest.sender);
        self.is_enabled.store(control.enable(), SeqCst);
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
            .field("bus_master", &guest.bus_master)
            .field("sender", &guest.sender)
            .field("open", &guest.entries.iter().filter(|entry| entry.open.is_some()).count())
            .finish_non_exhaustive()
    }
}

/// Returns the words that an access covers. Returns `None` unless the access is aligned, has 4 or 8
/// bytes, and starts below the end of the largest table.
fn words_at(offset: u64, len: usize) -> Option<Range<usize>> {
    let aligned = matches!(len, 4 | 8) && offset.is_multiple_of(len as u64);
    let end = u64::from(MSIX_MAX_VECTORS) * ENTRY_SIZE;
    let start = usize::try_from(offset / 4).ok().filter(|_| aligned && offset < end)?;
    Some(start..start + len / 4)
}

/// Fills `bytes` with the words at `offset`; words that do not exist read as all ones.
fn read_words(offset: u64, bytes: &mut [u8], word: impl Fn(usize) -> Option<u32>) {
    bytes.fill(0xff);
    let words = words_at(offset, bytes.len()).into_iter().flatten();
    for (target, word) in bytes.chunks_exact_mut(4).zip(words.map(word)) {
        target.copy_from_slice(&word.unwrap_or(u32::MAX).to_le_bytes());
    }
}
