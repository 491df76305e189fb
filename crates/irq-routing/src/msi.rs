//! A PCI function's MSI capability, as a VMM presents it to a guest.
//!
//! The capability owns its registers in configuration space and up to 32 vectors. Invariant: a
//! vector sends if and only if MSI is enabled, the vector is granted, and its mask bit is clear.
//!
//! - Accesses may have any size and offset. Bytes outside the capability are left unchanged, so a
//!   VMM can overlay capabilities on its image of configuration space.
//! - The address has 32 or 64 bits, and mask and pending bits are optional ([`MsiLayout`]).
//! - If a driver enables more vectors than the function supports, it is granted the supported
//!   number. PCI leaves this case undefined.
//! - Vector `n` sends the message data with its low bits replaced by `n`.
//! - If a vector is masked, its message becomes pending, as with MSI-X. While MSI is disabled, the
//!   function must assert its pin instead, and messages don't become pending. A message that races
//!   with the write that disables MSI may become pending; it is then sent when MSI is enabled
//!   again.
//! - While the function is not a bus master, it sends nothing, and the messages of its vectors
//!   become pending, also without mask and pending bits ([`MsiCapability::set_bus_master`]).
//!
//! When a write that masks a vector or disables MSI returns, no thread is sending the vector's
//! message, and none will until the vector is open again.
//!
//! Source: PCI Local Bus 3.0 §6.8.1, PCI Express Base §7.7.1.
//!
//! ```
//! use irq_routing::msi::{MsiCapability, MsiLayout};
//! use irq_routing::msix::Signaled;
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
//! #         assert_eq!((from, message.data), (DeviceId::new(8), 0x41));
//! #         Delivery::Pending
//! #     }
//! # }
//! let inputs = Inputs::new(Arc::new(Gic)).with_its(Arc::new(Gic));
//! let router = Arc::new(Router::new(GsiSpace::default(), inputs)?);
//! let layout = MsiLayout { log2_vectors: 2, address_64: true, per_vector_masking: true };
//! let msi = MsiCapability::new(layout, 0, Sender::Device(DeviceId::new(8)), router)?;
//!
//! msi.write(0x04, &0x0809_0040u32.to_le_bytes()); // the guest's driver writes the address,
//! msi.write(0x0c, &0x40u16.to_le_bytes()); // the data,
//! msi.write(0x02, &0x11u16.to_le_bytes()); // and enables two vectors
//!
//! assert_eq!(msi.signal(1), Signaled::Sent(Delivery::Pending)); // the device signals
//! assert_eq!(msi.signal(2), Signaled::NoSuchVector);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod registers;

pub use registers::MsiLayout;

use crate::lock::Mutex;
use crate::msix::{BusMaster, MsixTable, Signaled, VectorObserver};
use crate::saved_state::{MsiState, StateError};
use crate::{Attachment, MessageSink, RoutedMessage, Sender, Unsettled};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::pci::msi::Control;
use registers::Registers;

/// Invalid number of vectors for an MSI capability. The VMM is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an MSI capability has up to 32 vectors: log2_vectors must be 0 to 5, not {0}")]
pub struct BadVectorCount(pub u8);

/// A function's MSI capability and its vectors.
pub struct MsiCapability {
    registers: Mutex<Registers>,
    /// The vectors, as a table whose entries share a message.
    table: MsixTable,
    /// Base-2 logarithm of the number of granted vectors, or [`DISABLED`]. The value must only be
    /// written under the `registers` lock.
    granted: AtomicU8,
}

const DISABLED: u8 = u8::MAX;

impl MsiCapability {
    /// Explains why a vector does not interrupt a CPU, like [`MsixTable::explain`]. A vector that
    /// the guest has not granted does not exist.
    pub fn explain(&self, vector: u16) -> Explanation {
        match self.granted() {
            0 => Explanation::stopped(Obstacle::MessagesDisabled),
            granted if vector < granted => {
                let (data, explained) = (self.registers.lock().data(), self.table.explain(vector));
                if data & (granted - 1) == 0 {
                    return explained;
                }
                explained.with_fact(Fact::DataReplaced { data, granted })
            }
            granted => Explanation::stopped(Obstacle::NoVector { vector, vectors: granted }),
        }
    }

    /// Explains a vector of a function that also has an MSI-X table: a vector of the capability if
    /// MSI is enabled, and otherwise of the table. A guest must not enable both.
    pub fn explain_beside(&self, msix: &MsixTable, vector: u16) -> Explanation {
        match (self.is_enabled(), msix.control().enable()) {
            (true, true) => Explanation::stopped(Obstacle::BothEnabled),
            (true, false) => self.explain(vector),
            (false, _) => msix.explain(vector),
        }
    }

    /// Creates a capability in its reset state: disabled, with no vector masked. `next` is the
    /// offset of the next capability in configuration space, or 0.
    ///
    /// # Errors
    /// Returns [`BadVectorCount`] if `layout.log2_vectors` is greater than 5.
    pub fn new(
        layout: MsiLayout,
        next: u8,
        sender: Sender,
        sink: Arc<dyn MessageSink>,
    ) -> Result<Self, BadVectorCount> {
        let bad = BadVectorCount(layout.log2_vectors);
        let registers = Registers::new(layout, next).ok_or(bad)?;
        let table = MsixTable::new(registers.vectors(), sender, sink).map_err(|_| bad)?;
        Ok(Self { registers: Mutex::new(registers), table, granted: AtomicU8::new(DISABLED) })
    }

    /// Returns the capability's membership in its sink's [`attachments`](MessageSink::attachments).
    pub const fn attachment(&self) -> &Attachment {
        self.table.attachment()
    }

    /// Sets the observer for open vectors.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn VectorObserver>) -> Self {
        self.table = self.table.with_observer(observer);
        self
    }

    /// Returns the capability's length in bytes: 10, 14, 20 or 24.
    pub fn length(&self) -> u16 {
        self.registers.lock().length()
    }

    /// Reads configuration space for the guest. `offset` is relative to the capability. Bytes in
    /// `bytes` that are outside the capability are left unchanged.
    pub fn read(&self, offset: u16, bytes: &mut [u8]) {
        let registers = self.registers.lock();
        let pending =
            registers.has_pending(offset, bytes.len()).then(|| self.table.pending_word(0));
        registers.read(pending.unwrap_or(0), offset, bytes);
    }

    /// Writes configuration space for the guest. `offset` is relative to the capability. Ignores
    /// bytes outside the capability and read-only bits. If the write masks a vector, waits for
    /// threads that are sending its message.
    pub fn write(&self, offset: u16, bytes: &[u8]) {
        let mut registers = self.registers.lock();
        if registers.write(offset, bytes) {
            self.apply(&registers);
        }
    }

    /// Returns Message Control as the guest reads it.
    pub fn control(&self) -> Control {
        self.registers.lock().control()
    }

    /// Returns `true` if MSI is enabled. If so, the function must not assert its pin. Acquires no
    /// lock.
    ///
    /// Context: any.
    pub fn is_enabled(&self) -> bool {
        self.granted.load(Ordering::SeqCst) != DISABLED
    }

    /// Returns the number of vectors that the guest granted, or 0 while MSI is disabled. A device
    /// with more interrupt sources than granted vectors must share vectors between them. Acquires
    /// no lock.
    ///
    /// Context: any.
    pub fn granted(&self) -> u16 {
        match self.granted.load(Ordering::SeqCst) {
            DISABLED => 0,
            log2 => 1 << log2,
        }
    }

    /// Sends a vector's message for the device. Returns [`Signaled::NoSuchVector`] if the vector
    /// isn't granted. Like [`MsixTable::signal`], this method acquires no lock and does not
    /// allocate.
    ///
    /// Context: any.
    pub fn signal(&self, vector: u16) -> Signaled {
        self.signal_unless(vector, |_| false)
    }

    /// Sends a vector's message like [`signal`](Self::signal), unless `delivers` has delivered it.
    /// See [`MsixTable::signal_unless`].
    ///
    /// Context: any.
    #[inline]
    pub fn signal_unless(
        &self,
        vector: u16,
        delivers: impl FnOnce(RoutedMessage) -> bool,
    ) -> Signaled {
        match self.granted() {
            0 => Signaled::Disabled,
            granted if vector < granted => self.table.signal_unless(vector, delivers),
            _ => Signaled::NoSuchVector,
        }
    }

    /// Withdraws a vector's pending message. See [`MsixTable::withdraw`].
    pub fn withdraw(&self, vector: u16) {
        self.table.withdraw(vector);
    }

    /// Sets the sender for later messages, for example after the guest renumbered the function's
    /// bus.
    pub fn set_sender(&self, sender: Sender) {
        self.table.set_sender(sender);
    }

    /// Follows Bus Master Enable in the function's Command register; see
    /// [`MsixTable::set_bus_master`].
    pub fn set_bus_master(&self, bus_master: BusMaster) {
        self.table.set_bus_master(bus_master);
    }

    /// Resets the capability: disables MSI, unmasks all vectors, and clears the message and the
    /// pending bits.
    pub fn reset(&self) {
        let mut registers = self.registers.lock();
        registers.reset();
        self.granted.store(DISABLED, Ordering::SeqCst);
        self.table.reset();
    }

    /// Waits until every signal from before this call has been sent or is pending. See
    /// [`MsixTable::settle`].
    ///
    /// # Errors
    /// Returns [`Unsettled`] if a signal is still being served after `limit`.
    pub fn settle(&self, limit: Duration) -> Result<(), Unsettled> {
        self.table.settle(limit)
    }

    /// Saves the capability. See [`MsixTable::save`].
    pub fn save(&self) -> MsiState {
        let registers = self.registers.lock();
        registers.state(self.table.pending_word(0), self.table.bus_master())
    }

    /// Checks that [`restore`](Self::restore) would accept a state. Changes nothing.
    ///
    /// # Errors
    /// Returns the error that `restore` would return.
    pub fn check_restorable(&self, state: &MsiState) -> Result<(), StateError> {
        self.registers.lock().restored(state).map(drop)
    }

    /// Restores a saved state, and sends pending messages that are not masked.
    ///
    /// # Errors
    /// Returns an error if the state was not saved from a capability with this layout. In that
    /// case, the capability is unchanged.
    pub fn restore(&self, state: &MsiState) -> Result<(), StateError> {
        let mut registers = self.registers.lock();
        let restored = registers.restored(state)?;
        self.table.reset();
        self.table.set_bus_master(state.bus_master);
        for vector in (0..registers.vectors()).filter(|vector| state.pending >> vector & 1 != 0) {
            // The table is disabled, so `signal` only makes the message pending.
            self.table.signal(vector);
        }
        *registers = restored;
        self.apply(&registers);
        Ok(())
    }

    /// Updates the vectors to match the registers.
    fn apply(&self, registers: &Registers) {
        let granted = registers.log2_granted();
        self.granted.store(granted.unwrap_or(DISABLED), Ordering::SeqCst);
        self.table.replace(registers.table_control(), |vector| registers.entry(vector));
    }
}

msi_types::debug_by!(MsiCapability as "MsiCapability", |it| {control: it.control()});
