//! Functions behind a bus number that the guest assigns: their DeviceIDs follow the number.

use crate::Sender;
use crate::lock::Mutex;
use crate::msi::MsiCapability;
use crate::msix::MsixTable;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use msi_types::RequesterId;

/// A function's vectors, whose messages carry its sender.
pub trait MessageSource: Send + Sync {
    /// Sets the sender of later messages.
    fn set_sender(&self, sender: Sender);
}

impl MessageSource for MsixTable {
    fn set_sender(&self, sender: Sender) {
        self.set_sender(sender);
    }
}

impl MessageSource for MsiCapability {
    fn set_sender(&self, sender: Sender) {
        self.set_sender(sender);
    }
}

/// From a requester ID to the sender that the interrupt controller is told.
type Map = dyn Fn(RequesterId) -> Sender + Send + Sync;

/// The bus behind a bridge. A guest gives it a number (the bridge's Secondary Bus Number, PCI
/// Express Base §7.5.1.3.4), and may give it another at any time.
///
/// A monitor forwards each write of that register ([`set_number`](Self::set_number)). A function
/// that is removed is dropped; the bus does not keep it.
pub struct SecondaryBus {
    map: Arc<Map>,
    state: Mutex<State>,
}

struct State {
    number: u8,
    functions: Vec<Function>,
}

struct Function {
    /// Device number in bits 7 to 3, function number in bits 2 to 0.
    devfn: u8,
    source: Weak<dyn MessageSource>,
}

impl SecondaryBus {
    /// Creates a bus with number 0, as after reset. `map` is the machine's map from requester IDs
    /// to DeviceIDs: an `msi-map`, an IORT's, or the identity.
    pub fn new(map: impl Fn(RequesterId) -> Sender + Send + Sync + 'static) -> Self {
        Self { map: Arc::new(map), state: Mutex::new(State { number: 0, functions: Vec::new() }) }
    }

    /// Adds a function's vectors, which get their sender at once. A function with an MSI capability
    /// and an MSI-X table is added once for each.
    pub fn add(&self, device: u8, function: u8, source: &Arc<impl MessageSource + 'static>) {
        let devfn = device << 3 | function & 7;
        let mut state = self.state.lock();
        state.functions.retain(|function| function.source.strong_count() > 0);
        let number = state.number;
        source.set_sender(self.sender(number, devfn));
        let source: Weak<dyn MessageSource> = Arc::downgrade(source) as Weak<_>;
        state.functions.push(Function { devfn, source });
    }

    /// Sets the number for the guest. On return, later messages of all functions have the senders
    /// that follow from it.
    pub fn set_number(&self, number: u8) {
        let mut state = self.state.lock();
        state.number = number;
        for function in &state.functions {
            if let Some(source) = function.source.upgrade() {
                source.set_sender(self.sender(number, function.devfn));
            }
        }
    }

    /// Returns the number.
    pub fn number(&self) -> u8 {
        self.state.lock().number
    }

    fn sender(&self, bus: u8, devfn: u8) -> Sender {
        (self.map)(RequesterId::pci(bus, devfn >> 3, devfn & 7))
    }
}

impl fmt::Debug for SecondaryBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("SecondaryBus")
            .field("number", &state.number)
            .field("functions", &state.functions.len())
            .finish_non_exhaustive()
    }
}
