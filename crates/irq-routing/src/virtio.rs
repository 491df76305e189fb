//! Notifications of a virtio device over PCI: the configuration's vector, one vector per queue, and
//! the ISR status.
//!
//! The guest assigns MSI-X vectors of the function's [`MsixTable`] to the device's notifications
//! and may change them at any time; the device passes only the [`Notification`], from any thread.
//! While MSI-X is disabled, the notifier asserts the function's pin (INTx) instead.
//!
//! The VMM forwards the guest's accesses:
//!
//! | access | call |
//! |---|---|
//! | `config_msix_vector`, `queue_msix_vector` | [`write_vector`](VirtioNotifier::write_vector), [`vector`](VirtioNotifier::vector) |
//! | a read of the ISR status | [`take_isr`](VirtioNotifier::take_isr) |
//! | a write to the MSI-X capability | [`write_capability`](VirtioNotifier::write_capability) |
//! | a write of 0 to `device_status` | [`reset`](VirtioNotifier::reset) |
//! | a write of 1 to `queue_reset` | [`write_vector`](VirtioNotifier::write_vector) with [`NO_VECTOR`] |
//! | a read of the Status register of configuration space | [`interrupt_status`](VirtioNotifier::interrupt_status) |
//! | the MSI-X table and its pending bits | the table itself |
//!
//! The notifier does not access the queues' memory. Before a device calls
//! [`notify`](VirtioNotifier::notify), it must store the used buffer, execute a full barrier, and
//! read whether the guest wants a notification (virtio §2.7.7.2). The same barrier orders the used
//! buffer before the read of the queue's vector: a guest that checks the queue after it has changed
//! the vector finds the buffer, or the new vector signals it.
//!
//! An eventfd that the device signals itself bypasses the notifier: while MSI-X is disabled, its
//! signals neither set the ISR status nor assert the pin. A device that must work without MSI-X
//! must then signal an eventfd whose function calls `notify`.
//!
//! Source: virtio 1.2 §4.1.4.3, §4.1.4.5 and §4.1.5.1.2 to §4.1.5.4.
//!
//! ```
//! use irq_routing::msix::{MsixTable, Signaled};
//! use irq_routing::virtio::{Notification, VirtioNotifier};
//! # use irq_routing::{GsiSpace, Inputs, Router, Sender};
//! # use msi_types::{Delivery, DeviceId, Level, Line, MsiMessage, SetLine, SignalMsi};
//! # use std::sync::Arc;
//! # struct Gic;
//! # impl SetLine for Gic {
//! #     fn set_line(&self, _: Line, _: Level) -> Delivery { Delivery::Blocked }
//! #     fn pulse(&self, _: Line) -> Delivery { Delivery::Blocked }
//! # }
//! # impl SignalMsi<DeviceId> for Gic {
//! #     fn signal_msi(&self, _: DeviceId, _: MsiMessage) -> Delivery { Delivery::Pending }
//! # }
//! # let inputs = Inputs::new(Arc::new(Gic)).with_its(Arc::new(Gic));
//! # let router = Arc::new(Router::new(GsiSpace::default(), inputs)?);
//! let table = Arc::new(MsixTable::new(3, Sender::Device(DeviceId::new(8)), router)?);
//! let notifier = VirtioNotifier::new(table.clone(), 2);
//!
//! notifier.write_capability(0x02, &0x8000u16.to_le_bytes()); // the guest enables MSI-X,
//! table.write(0x18, &3u64.to_le_bytes()); // unmasks vector 1,
//! notifier.write_vector(Notification::UsedBuffer(0), 1); // and assigns it to queue 0
//!
//! let sent = notifier.notify(Notification::UsedBuffer(0));
//! assert_eq!(sent, Some(Signaled::Sent(Delivery::Pending)));
//! assert_eq!(notifier.notify(Notification::UsedBuffer(1)), None); // has no vector
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::Attachment;
use crate::lock::Mutex;
use crate::msix::{MsixTable, Signaled};
use crate::saved_state::{StateError, VERSION, VirtioState, check_version};
use crate::sync::{AtomicU16, SeqCst};
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use msi_types::Level;

/// Vector number of a notification without a vector: `VIRTIO_MSI_NO_VECTOR`.
pub const NO_VECTOR: u16 = 0xffff;

/// Reason for which a device notifies its driver.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Notification {
    /// The device's configuration changed.
    ConfigurationChange,
    /// The device used a buffer of the queue with this number.
    UsedBuffer(u16),
}

impl Notification {
    /// Returns the bit of the ISR status.
    const fn isr(self) -> u8 {
        match self {
            Self::UsedBuffer(_) => 1,
            Self::ConfigurationChange => 2,
        }
    }

    /// Returns the index in [`VirtioNotifier`]'s vectors.
    fn index(self) -> usize {
        match self {
            Self::ConfigurationChange => 0,
            Self::UsedBuffer(queue) => usize::from(queue) + 1,
        }
    }
}

/// Callback that drives the function's pin.
type DrivePin = dyn Fn(Level) + Send + Sync;
/// Callback that learns of a notification's new vector.
type Observer = dyn Fn(Notification, Option<u16>) + Send + Sync;

/// Signals a virtio device's notifications to the guest. The [module's example](self) shows both
/// sides. Dropping the notifier deasserts the pin.
pub struct VirtioNotifier {
    table: Arc<MsixTable>,
    attachment: Attachment,
    /// The configuration's vector, then those of the queues.
    vectors: Box<[AtomicU16]>,
    /// Number of vectors in the table.
    table_size: u16,
    /// Serializes assignments, so that the observer learns of them in order. A thread that holds
    /// both locks acquired this one first.
    assigning: Mutex<()>,
    isr: Mutex<Isr>,
    pin: Option<Box<DrivePin>>,
    observer: Option<Box<Observer>>,
}

/// The ISR status and the resulting level of the pin.
struct Isr {
    bits: u8,
    pin: Level,
}

impl VirtioNotifier {
    /// Creates a notifier for a device with this many queues. No notification has a vector yet.
    pub fn new(table: Arc<MsixTable>, queues: u16) -> Self {
        let vectors = (0..=queues).map(|_| AtomicU16::new(NO_VECTOR)).collect();
        let (table_size, assigning) = (table.control().table_size(), Mutex::new(()));
        let isr = Mutex::new(Isr { bits: 0, pin: Level::Low });
        let Attachment { name, all } = table.attachment();
        let attachment = all.attach(format!("the virtio notifier of {name}"));
        let (pin, observer) = (None, None);
        Self { table, attachment, vectors, table_size, assigning, isr, pin, observer }
    }

    /// Returns the notifier's membership in its table's [`attachment`](MsixTable::attachment).
    pub const fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Sets the callback that drives the function's pin (INTx). Functions share pins: the VMM must
    /// keep the line high while any function asserts it. The VMM must not assert the line while
    /// Interrupt Disable is set in the function's Command register.
    ///
    /// The callback runs with a lock held, and must not call the notifier. A device without a pin
    /// cannot interrupt the guest while MSI-X is disabled; its ISR status still changes.
    #[must_use]
    pub fn with_pin(mut self, pin: impl Fn(Level) + Send + Sync + 'static) -> Self {
        self.pin = Some(Box::new(pin));
        self
    }

    /// Sets the observer of the vectors that the guest assigns, for a device that signals by
    /// eventfds. The observer should call `DeviceEventfds::set_vector`. It is called with a lock
    /// held, and must neither change the notifier's vectors nor wait for code that does.
    #[must_use]
    pub fn with_observer(
        mut self,
        observer: impl Fn(Notification, Option<u16>) + Send + Sync + 'static,
    ) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Notifies the guest. Returns the outcome of the vector's signal,
    /// [`Disabled`](Signaled::Disabled) if MSI-X is disabled and the notifier has asserted the pin
    /// instead, or `None` if the guest has assigned no vector or the queue does not exist.
    ///
    /// Does not allocate. A used buffer's notification by MSI-X acquires no lock. All others
    /// acquire the lock under which the pin is driven, so a kick that the pin causes delays them.
    ///
    /// Context: task; may sleep.
    pub fn notify(&self, notification: Notification) -> Option<Signaled> {
        let place = self.vectors.get(notification.index())?;
        if notification == Notification::ConfigurationChange {
            self.set_isr(notification);
        }
        if self.table.is_enabled() {
            let vector = place.load(SeqCst);
            let signaled = (vector != NO_VECTOR).then(|| self.table.signal(vector));
            // Once the guest has disabled MSI-X, vectors hold their messages, and the guest may
            // remove them.
            if !matches!(signaled, None | Some(Signaled::Held)) || self.table.is_enabled() {
                return signaled;
            }
        }
        self.set_isr(notification);
        Some(Signaled::Disabled)
    }

    /// Assigns a vector to a notification for the guest. [`NO_VECTOR`] removes the vector, and so
    /// does a vector that the table doesn't have, because the driver reads the register to see
    /// whether the device has accepted the vector. Later notifications use the new vector; the old
    /// vector's message is not withdrawn. Ignores a queue that does not exist.
    pub fn write_vector(&self, notification: Notification, vector: u16) {
        if notification.index() < self.vectors.len() {
            let _locked = self.assigning.lock();
            self.assign(notification, vector);
        }
    }

    /// Returns a notification's vector as the guest reads it, or [`NO_VECTOR`] if it has none or
    /// the queue does not exist.
    pub fn vector(&self, notification: Notification) -> u16 {
        self.vectors.get(notification.index()).map_or(NO_VECTOR, |vector| vector.load(SeqCst))
    }

    /// Reads and clears the ISR status for the guest. Deasserts the pin.
    pub fn take_isr(&self) -> u8 {
        let mut isr = self.isr.lock();
        let bits = core::mem::take(&mut isr.bits);
        self.drive(&mut isr);
        bits
    }

    /// Returns Interrupt Status, bit 3 of the Status register in configuration space: whether the
    /// function asserts its pin, or would if Interrupt Disable were clear (virtio §4.1.4.5.1).
    pub fn interrupt_status(&self) -> bool {
        self.isr.lock().pin == Level::High
    }

    /// Writes the MSI-X capability for the guest, like [`MsixTable::write_capability`]. While MSI-X
    /// is enabled, the pin is deasserted (PCI Express Base §7.7.2.2). The VMM must not call the
    /// table's own methods instead, which do not change the pin.
    pub fn write_capability(&self, offset: u16, bytes: &[u8]) {
        self.table.write_capability(offset, bytes);
        self.drive(&mut self.isr.lock());
    }

    /// Resets the device, which must have stopped: withdraws pending messages of its vectors,
    /// removes the vectors, clears the ISR status and deasserts the pin. The MSI-X table itself
    /// belongs to the PCI function and is not reset.
    pub fn reset(&self) {
        let _locked = self.assigning.lock();
        for notification in self.notifications() {
            // No notification may arrive after the reset (virtio §2.4.1).
            self.table.withdraw(self.vector(notification));
            self.assign(notification, NO_VECTOR);
        }
        let mut isr = self.isr.lock();
        isr.bits = 0;
        self.drive(&mut isr);
    }

    /// Returns the notifications in the order of their vectors.
    fn notifications(&self) -> impl Iterator<Item = Notification> {
        let queues = (0..u16::MAX).take(self.vectors.len() - 1);
        core::iter::once(Notification::ConfigurationChange)
            .chain(queues.map(Notification::UsedBuffer))
    }

    /// Assigns a vector. Callers must hold `assigning`.
    fn assign(&self, notification: Notification, vector: u16) {
        let vector = Some(vector).filter(|vector| *vector < self.table_size);
        if let Some(place) = self.vectors.get(notification.index()) {
            place.store(vector.unwrap_or(NO_VECTOR), SeqCst);
        }
        if let Some(observer) = &self.observer {
            observer(notification, vector);
        }
    }

    fn set_isr(&self, notification: Notification) {
        let mut isr = self.isr.lock();
        isr.bits |= notification.isr();
        self.drive(&mut isr);
    }

    /// Drives the pin if its level has changed.
    fn drive(&self, isr: &mut Isr) {
        let before = isr.pin;
        isr.pin = self.level(isr);
        if isr.pin != before {
            self.drive_always(isr);
        }
    }

    fn drive_always(&self, isr: &Isr) {
        if let Some(pin) = &self.pin {
            pin(isr.pin);
        }
    }

    fn level(&self, isr: &Isr) -> Level {
        let asserted = isr.bits != 0 && !self.table.is_enabled();
        if asserted { Level::High } else { Level::Low }
    }
}

impl Drop for VirtioNotifier {
    fn drop(&mut self) {
        let mut isr = self.isr.lock();
        isr.bits = 0;
        self.drive(&mut isr);
    }
}

msi_types::debug_by!(VirtioNotifier as "VirtioNotifier", |it| {vectors: it.vectors});

/// Bits of the ISR status that a device can set.
const ISR_BITS: u8 = Notification::ConfigurationChange.isr() | Notification::UsedBuffer(0).isr();

impl VirtioNotifier {
    /// Saves the vectors and the ISR status. The MSI-X table has its own
    /// [state](crate::msix::MsixTable::save).
    pub fn save(&self) -> VirtioState {
        let _locked = self.assigning.lock();
        let isr = self.isr.lock();
        let mut vectors = self.notifications().map(|notification| self.vector(notification));
        VirtioState {
            version: VERSION,
            configuration_vector: vectors.next().unwrap_or(NO_VECTOR),
            queue_vectors: vectors.collect(),
            isr: isr.bits,
        }
    }

    /// Checks that [`restore`](Self::restore) would accept a state. Changes nothing.
    ///
    /// # Errors
    /// Returns the error that `restore` would return.
    pub fn check_restorable(&self, state: &VirtioState) -> Result<(), StateError> {
        let VirtioState { version, configuration_vector, queue_vectors, isr: bits } = state;
        check_version(*version)?;
        let queues = self.vectors.len() - 1;
        if queue_vectors.len() != queues {
            return Err(StateError::Queues { saved: queue_vectors.len(), here: queues });
        }
        let mut vectors = core::iter::once(configuration_vector).chain(queue_vectors);
        let is_missing = |vector: &&u16| **vector != NO_VECTOR && **vector >= self.table_size;
        if let Some(vector) = vectors.find(is_missing) {
            return Err(StateError::Vector(*vector));
        }
        if bits & !ISR_BITS != 0 {
            let value = u64::from(bits & !ISR_BITS);
            return Err(StateError::ReservedBits { register: "ISR status", value });
        }
        Ok(())
    }

    /// Restores a saved state, tells the observer about all vectors, and drives the pin, even if
    /// its level is unchanged. The interrupt controller and the MSI-X table must be restored first.
    ///
    /// # Errors
    /// Returns an error if the version is not supported, the number of queues differs, the table
    /// lacks a vector, or the ISR status has reserved bits. In that case, the notifier is
    /// unchanged.
    pub fn restore(&self, state: &VirtioState) -> Result<(), StateError> {
        self.check_restorable(state)?;
        let _locked = self.assigning.lock();
        let vectors = core::iter::once(&state.configuration_vector).chain(&state.queue_vectors);
        for (notification, vector) in self.notifications().zip(vectors) {
            self.assign(notification, *vector);
        }
        let mut isr = self.isr.lock();
        isr.bits = state.isr;
        isr.pin = self.level(&isr);
        self.drive_always(&isr);
        Ok(())
    }
}
