//! A function's message store: an MSI capability or an MSI-X table of `irq-routing`, in the
//! function's configuration space and BARs.

use crate::bus::AccessWidth;
use crate::pci::bus_number::{BusNumber, DevFn};
use crate::pci::config_bytes::{self, ConfigBytes};
use irq_routing::msi::{MsiCapability, MsiLayout};
use irq_routing::msix::{BusMaster, MsixLayout, MsixTable, Signaled as Outcome};
use irq_routing::{MessageSink, RoutedMessage, Sender, SignalError};
use msi_types::pci::{msi, msix};
use msi_types::{Delivery, Masking, RequesterId, SignalMsi};
use std::sync::Arc;

/// Number of address bits in an MSI capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressWidth {
    /// 32 bits.
    Bits32,
    /// 64 bits.
    Bits64,
}

/// Offset of the pending bits in a BAR that also holds the table, which is just after the largest
/// possible table.
pub(super) const PBA_BEHIND_TABLE: u32 = 0x8000;

/// The parameters of a message store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreConfig {
    /// An MSI capability with 2^`log2_vectors` vectors (at most 32).
    Msi {
        /// Base-2 logarithm of the number of vectors, 0 to 5.
        log2_vectors: u8,
        /// Width of the message address.
        address: AddressWidth,
        /// Support for mask bits and pending bits.
        masking: Masking,
    },
    /// MSI-X.
    Msix {
        /// Number of table entries: 1 to 2048.
        vectors: u16,
        /// The BAR that holds the table.
        table_bar: u8,
        /// The BAR that holds the pending bits.
        pba_bar: u8,
    },
    /// The function has no message store, so it can't interrupt.
    None,
}

/// The result of an attempt to send a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signaled {
    /// The message was sent.
    Sent(Delivery),
    /// A mask holds the message back, or the function is not a bus master. The message is sent when
    /// the mask is cleared, or Bus Master Enable is set.
    Held,
    /// The device must not send messages, because it is disabled or unplugged.
    Off,
}

/// The function's connection to its bus.
pub(super) struct Upstream {
    pub(super) number: Arc<BusNumber>,
    pub(super) at: DevFn,
    pub(super) bus: Arc<dyn SignalMsi<RequesterId>>,
}

impl Upstream {
    pub(super) fn requester(&self) -> RequesterId {
        self.number.requester(self.at)
    }
}

impl MessageSink for Upstream {
    fn signal_msi(&self, routed: RoutedMessage) -> Result<Delivery, SignalError> {
        Ok(self.bus.signal_msi(self.requester(), routed.message))
    }
}

/// A message store and the offset of its capability.
pub(super) enum Store {
    Msi(u16, MsiCapability),
    Msix(u16, MsixTable),
    None,
}

impl Store {
    /// Adds a store to configuration space, as its last capability.
    pub(super) fn add(
        config: &mut ConfigBytes,
        store: StoreConfig,
        upstream: Arc<Upstream>,
    ) -> Self {
        let store = match store {
            StoreConfig::Msi { log2_vectors, address, masking } => {
                let layout = MsiLayout {
                    log2_vectors: log2_vectors.min(5),
                    address_64: address == AddressWidth::Bits64,
                    per_vector_masking: masking == Masking::PerVector,
                };
                MsiCapability::new(layout, 0, Sender::Anonymous, upstream).ok().map(|store| {
                    Self::Msi(config.add_capability(msi::CAPABILITY_ID, store.length()), store)
                })
            }
            StoreConfig::Msix { vectors, table_bar, pba_bar } => {
                let behind = if pba_bar == table_bar { PBA_BEHIND_TABLE } else { 0 };
                let place = |bar, offset| {
                    msix::BarOffset::new().with_bir(bar & 7).with_offset_in_qwords(offset / 8)
                };
                let (table, pending) = (place(table_bar, 0), place(pba_bar, behind));
                let layout = MsixLayout { table, pending, next: 0 };
                MsixTable::new(vectors, Sender::Anonymous, upstream).ok().map(|store| {
                    let at = config.add_capability(msix::CAPABILITY_ID, msix::LENGTH);
                    Self::Msix(at, store.with_layout(layout))
                })
            }
            StoreConfig::None => None,
        };
        store.unwrap_or(Self::None)
    }

    /// Signals vector `index`. Vectors of an MSI capability share those that software has granted.
    pub(super) fn signal(&self, index: u16) -> Signaled {
        let outcome = match self {
            Self::Msi(_, store) => store.signal(index & store.granted().saturating_sub(1)),
            Self::Msix(_, store) if store.control().enable() => store.signal(index),
            Self::Msix(..) | Self::None => Outcome::Disabled,
        };
        match outcome {
            Outcome::Sent(delivery) => Signaled::Sent(delivery),
            Outcome::Held => Signaled::Held,
            Outcome::Refused(_) | Outcome::Disabled | Outcome::NoSuchVector => Signaled::Off,
        }
    }

    /// Reads configuration space, where `value` stands outside of the store's capability.
    pub(super) fn config_read(&self, offset: u16, width: AccessWidth, value: u32) -> u32 {
        let mut bytes = value.to_le_bytes();
        let read = bytes.get_mut(..config_bytes::length(width)).unwrap_or_default();
        match self {
            Self::Msi(at, store) if offset >= *at => store.read(offset - at, read),
            Self::Msix(at, store) if offset >= *at => store.read_capability(offset - at, read),
            Self::Msi(..) | Self::Msix(..) | Self::None => {}
        }
        u32::from_le_bytes(bytes)
    }

    /// Writes configuration space.
    pub(super) fn config_write(&self, offset: u16, width: AccessWidth, value: u32) {
        let bytes = value.to_le_bytes();
        let bytes = bytes.get(..config_bytes::length(width)).unwrap_or_default();
        match self {
            Self::Msi(at, store) if offset >= *at => store.write(offset - at, bytes),
            Self::Msix(at, store) if offset >= *at => store.write_capability(offset - at, bytes),
            Self::Msi(..) | Self::Msix(..) | Self::None => {}
        }
    }

    /// Follows Bus Master Enable in the function's Command register.
    pub(super) fn set_bus_master(&self, bus_master: BusMaster) {
        match self {
            Self::Msi(_, store) => store.set_bus_master(bus_master),
            Self::Msix(_, store) => store.set_bus_master(bus_master),
            Self::None => {}
        }
    }
}
