//! A PCI function's MSI capability, as a monitor shows it to a guest.
//!
//! The capability owns its registers in configuration space and up to 32 vectors. Invariant: a
//! vector sends if and only if MSI is enabled, the vector is granted, and its mask bit is clear.
//!
//! - Accesses have any size and offset. Bytes outside of the capability stay as they are, so that
//!   a monitor can lay capabilities over its bytes of configuration space.
//! - The address has 32 or 64 bits; mask and pending bits exist or not ([`MsiLayout`]).
//! - A driver that writes a grant above the capable number is granted the capable number. PCI
//!   leaves that undefined.
//! - Vector `n` sends the data with its low bits replaced by `n`.
//! - A message of a masked vector becomes pending, as in the table of MSI-X. While MSI is disabled,
//!   the function asserts its pin instead, and nothing becomes pending. A message that meets the
//!   write that disables may become pending for the next time.
//!
//! When a write that masks or disables returns, no message of that vector is being sent, nor will
//! be.
//!
//! Source: PCI Local Bus 3.0 §6.8.1, PCI Express Base §7.7.1.
//!
//! ```
//! use irq_routing::msi::{MsiCapability, MsiLayout};
//! use irq_routing::msix::Signalled;
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
//! msi.write(0x04, &0x0809_0040u32.to_le_bytes()); // the guest's driver: the address,
//! msi.write(0x0c, &0x40u16.to_le_bytes()); // the data,
//! msi.write(0x02, &0x11u16.to_le_bytes()); // two vectors, enabled
//!
//! assert_eq!(msi.signal(1), Signalled::Sent(Delivery::Pending)); // the device
//! assert_eq!(msi.signal(2), Signalled::NoSuchVector);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod registers;

pub use registers::MsiLayout;

use crate::lock::Mutex;
use crate::msix::{MsixTable, Signalled, VectorObserver};
use crate::saved_state::{MsiState, StateError};
use crate::{MessageSink, Sender};
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};
use msi_types::pci::msi::Control;
use registers::Registers;

/// A number of vectors that no MSI capability has. The monitor's mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an MSI capability has 1 to 32 vectors, a power of two: its logarithm is 0 to 5, not {0}")]
pub struct BadVectorCount(pub u8);

/// A function's MSI capability and its vectors.
pub struct MsiCapability {
    registers: Mutex<Registers>,
    /// The capability's vectors as a table, whose entries share a message.
    table: MsixTable,
    /// Base-2 logarithm of the granted vectors; [`DISABLED`] while there is none. Written under
    /// the lock of the registers.
    granted: AtomicU8,
}

const DISABLED: u8 = u8::MAX;

impl MsiCapability {
    /// Creates a capability as after reset: disabled, no vector masked. `next` is the offset of the
    /// next capability in configuration space, or 0.
    ///
    /// # Errors
    /// [`BadVectorCount`].
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

    /// Adds an observer of the vectors that may send.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn VectorObserver>) -> Self {
        self.table = self.table.with_observer(observer);
        self
    }

    /// Returns the length in bytes: 10, 14, 20 or 24.
    pub fn length(&self) -> u16 {
        self.registers.lock().length()
    }

    /// Reads configuration space for the guest, by the offset from the capability. Bytes outside
    /// of the capability stay as they are.
    pub fn read(&self, offset: u16, bytes: &mut [u8]) {
        let registers = self.registers.lock();
        let pending =
            registers.has_pending(offset, bytes.len()).then(|| self.table.pending_word(0));
        registers.read(pending.unwrap_or(0), offset, bytes);
    }

    /// Writes configuration space for the guest, by the offset from the capability. Bytes outside
    /// of the capability, and read-only bits, are ignored. Waits for threads that are sending by a
    /// vector that the write masks.
    pub fn write(&self, offset: u16, bytes: &[u8]) {
        let mut registers = self.registers.lock();
        if registers.write(offset, bytes) {
            self.settle(&registers);
        }
    }

    /// Returns Message Control, as the guest reads it.
    pub fn control(&self) -> Control {
        self.registers.lock().control()
    }

    /// Returns true if the function signals by MSI, not by its pin. Acquires no lock.
    ///
    /// Context: any.
    pub fn is_enabled(&self) -> bool {
        self.granted.load(Ordering::SeqCst) != DISABLED
    }

    /// Returns the number of vectors that the guest granted: 0 while MSI is disabled. A device with
    /// more sources than vectors must share vectors. Acquires no lock.
    ///
    /// Context: any.
    pub fn granted(&self) -> u16 {
        match self.granted.load(Ordering::SeqCst) {
            DISABLED => 0,
            log2 => 1 << log2,
        }
    }

    /// Sends a vector's message for the device. A vector that is not granted does not exist. Like
    /// [`MsixTable::signal`], acquires no lock and does not allocate.
    ///
    /// Context: any.
    pub fn signal(&self, vector: u16) -> Signalled {
        match self.granted() {
            0 => Signalled::Disabled,
            granted if vector < granted => self.table.signal(vector),
            _ => Signalled::NoSuchVector,
        }
    }

    /// Withdraws a vector's pending message, as [`MsixTable::withdraw`].
    pub fn withdraw(&self, vector: u16) {
        self.table.withdraw(vector);
    }

    /// Sets the sender of later messages: a function's bus got another number.
    pub fn set_sender(&self, sender: Sender) {
        self.table.set_sender(sender);
    }

    /// Resets the function: disabled, no vector masked, no message stored or pending.
    pub fn reset(&self) {
        let mut registers = self.registers.lock();
        registers.reset();
        self.granted.store(DISABLED, Ordering::SeqCst);
        self.table.reset();
    }

    /// Saves the capability, as [`MsixTable::save`] does.
    pub fn save(&self) -> MsiState {
        let registers = self.registers.lock();
        registers.state(self.table.pending_word(0))
    }

    /// Replaces the capability by a saved one, and sends what is pending and not masked.
    ///
    /// # Errors
    /// The state is not one of such a capability. Nothing has changed then.
    pub fn restore(&self, state: &MsiState) -> Result<(), StateError> {
        let mut registers = self.registers.lock();
        let restored = registers.restored(state)?;
        self.table.reset();
        for vector in (0..registers.vectors()).filter(|vector| state.pending >> vector & 1 != 0) {
            // The table is disabled: the message becomes pending.
            self.table.signal(vector);
        }
        *registers = restored;
        self.settle(&registers);
        Ok(())
    }

    /// Brings the vectors in line with the registers.
    fn settle(&self, registers: &Registers) {
        let granted = registers.log2_granted();
        self.granted.store(granted.unwrap_or(DISABLED), Ordering::SeqCst);
        self.table.replace(registers.table_control(), |vector| registers.entry(vector));
    }
}

impl fmt::Debug for MsiCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MsiCapability").field("control", &self.control()).finish_non_exhaustive()
    }
}
