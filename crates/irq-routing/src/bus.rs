//! PCI buses that the guest numbers. The DeviceID of a function on such a bus depends on the bus
//! number, so it changes when the guest renumbers the bus.

use crate::Sender;
use crate::lock::Mutex;
use crate::msi::MsiCapability;
use crate::msix::MsixTable;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use msi_types::RequesterId;

/// Source of a function's messages. Each message carries the function's sender.
pub trait MessageSource: Send + Sync {
    /// Sets the sender for later messages.
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

/// Map from a requester ID to the sender that the interrupt controller sees.
type Map = dyn Fn(RequesterId) -> Sender + Send + Sync;

/// A bus behind a bridge. The guest numbers it (the bridge's Secondary Bus Number, PCI Express Base
/// §7.5.1.3.4) and may renumber it at any time.
///
/// The VMM must forward each write to that register to [`set_number`](Self::set_number). The bus
/// holds functions weakly, so a removed function can simply be dropped.
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
    /// Creates a bus with number 0, the reset value. `map` is the machine's mapping from requester
    /// IDs to DeviceIDs: an `msi-map`, an IORT, or the identity.
    pub fn new(map: impl Fn(RequesterId) -> Sender + Send + Sync + 'static) -> Self {
        Self { map: Arc::new(map), state: Mutex::new(State { number: 0, functions: Vec::new() }) }
    }

    /// Adds a function's vectors and immediately sets their sender. If a function has both an MSI
    /// capability and an MSI-X table, add it once for each.
    pub fn add(&self, device: u8, function: u8, source: &Arc<impl MessageSource + 'static>) {
        let devfn = device << 3 | function & 7;
        let mut state = self.state.lock();
        state.functions.retain(|function| function.source.strong_count() > 0);
        let number = state.number;
        source.set_sender(self.sender(number, devfn));
        let source: Weak<dyn MessageSource> = Arc::downgrade(source) as Weak<_>;
        state.functions.push(Function { devfn, source });
    }

    /// Sets the bus number for the guest. On return, all functions' later messages carry the
    /// senders that result from the new number.
    pub fn set_number(&self, number: u8) {
        let mut state = self.state.lock();
        state.number = number;
        for function in &state.functions {
            if let Some(source) = function.source.upgrade() {
                source.set_sender(self.sender(number, function.devfn));
            }
        }
    }

    /// Returns the bus number.
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
