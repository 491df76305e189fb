//! A bridge, with its type 1 configuration space and message forwarding.

use crate::bus::AccessWidth;
use crate::lock::lock;
use crate::pci::bus_number::{BusNumber, DevFn};
use crate::pci::config_bytes::ConfigBytes;
use crate::pci::header;
use msi_types::{Delivery, MsiMessage, RequesterId, SignalMsi};
use std::sync::{Arc, Mutex};

/// The kind of bus below a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BridgeKind {
    /// PCI Express, on which functions keep their own requester IDs.
    RootPort,
    /// Conventional PCI, on which all functions use the requester ID of device 0, function 0 on the
    /// secondary bus.
    ToConventional,
}

impl BridgeKind {
    /// Returns the path through which functions on bus `secondary`, behind a bridge of this kind,
    /// send messages upstream.
    pub(super) fn upstream(
        self,
        secondary: Arc<BusNumber>,
        next: Arc<dyn SignalMsi<RequesterId>>,
    ) -> Arc<dyn SignalMsi<RequesterId>> {
        Arc::new(BridgeUpstream { kind: self, secondary, next })
    }
}

/// A bridge between two buses.
pub(super) struct Bridge {
    config: Mutex<ConfigBytes>,
    /// The bridge's secondary bus number.
    secondary: Arc<BusNumber>,
}

impl Bridge {
    /// Creates a bridge from bus `primary` to bus `secondary`, with the bus numbers that firmware
    /// has set.
    pub(super) fn new(kind: BridgeKind, primary: u8, secondary: Arc<BusNumber>) -> Self {
        let mut config = ConfigBytes::new();
        let behind = u32::from(secondary.get());
        config.store(header::VENDOR, AccessWidth::Word, 0x0002_d00b);
        config.store(header::CLASS, AccessWidth::Word, 0x0604_0000);
        config.store(header::HEADER_TYPE, AccessWidth::Byte, 1);
        let numbers = behind << 16 | behind << 8 | u32::from(primary);
        config.store(header::BUS_NUMBERS, AccessWidth::Word, numbers);
        config.allow(header::BUS_NUMBERS, AccessWidth::Word, 0x00ff_ffff);
        // The prefetchable window uses 64-bit addresses. The window stays disabled (base above
        // limit) until software sets it.
        config.store(header::PREFETCHABLE, AccessWidth::Word, 0x0001_fff1);
        config.allow(header::PREFETCHABLE, AccessWidth::Word, 0xfff0_fff0);
        config.allow(header::PREFETCHABLE_UPPER, AccessWidth::Word, u32::MAX);
        config.allow(header::PREFETCHABLE_UPPER + 4, AccessWidth::Word, u32::MAX);
        let command = header::COMMAND_MEMORY | header::COMMAND_MASTER;
        config.allow(header::COMMAND, AccessWidth::Half, u32::from(command));
        let express = config.add_capability(header::EXPRESS, 0x3c);
        let port = match kind {
            BridgeKind::RootPort => header::PORT_ROOT,
            BridgeKind::ToConventional => header::PORT_TO_CONVENTIONAL,
        };
        config.store(express + header::EXPRESS_FLAGS, AccessWidth::Half, u32::from(port << 4 | 2));
        Self { config: Mutex::new(config), secondary }
    }

    /// Reads up to 32 bits from configuration space.
    pub(super) fn config_read(&self, offset: u16, width: AccessWidth) -> u32 {
        lock(&self.config).load(offset, width)
    }

    /// Writes up to 32 bits to configuration space.
    pub(super) fn config_write(&self, offset: u16, width: AccessWidth, value: u32) {
        let mut config = lock(&self.config);
        config.write(offset, width, value);
        let [_, secondary, ..] = config.load(header::BUS_NUMBERS, AccessWidth::Word).to_le_bytes();
        self.secondary.set(secondary);
    }

    /// Returns `true` if `bus` is below the bridge.
    pub(super) fn leads_to(&self, bus: u8) -> bool {
        let numbers = lock(&self.config).load(header::BUS_NUMBERS, AccessWidth::Word);
        let [_, secondary, subordinate, _] = numbers.to_le_bytes();
        (secondary..=subordinate).contains(&bus)
    }

    /// Returns `true` if the bridge forwards CPU accesses to this address.
    pub(super) fn forwards(&self, address: u64) -> bool {
        let config = lock(&self.config);
        let on = config.load16(header::COMMAND) & header::COMMAND_MEMORY != 0;
        let upper = |offset| {
            u64::from(config.load(header::PREFETCHABLE_UPPER + offset, AccessWidth::Word)) << 32
        };
        let lower = |offset| u64::from(config.load16(header::PREFETCHABLE + offset) & 0xfff0) << 16;
        let (base, limit) = (upper(0) | lower(0), upper(4) | lower(2) | 0xf_ffff);
        on && (base..=limit).contains(&address)
    }
}

/// The path through which a function's messages reach the host bridge. A conventional-PCI bridge
/// takes ownership of its functions' transactions and forwards them with the requester ID of device
/// 0, function 0 on the bridge's secondary bus.
struct BridgeUpstream {
    kind: BridgeKind,
    secondary: Arc<BusNumber>,
    next: Arc<dyn SignalMsi<RequesterId>>,
}

impl SignalMsi<RequesterId> for BridgeUpstream {
    fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
        let from = match self.kind {
            BridgeKind::RootPort => from,
            BridgeKind::ToConventional => self.secondary.requester(DevFn::new(0, 0)),
        };
        self.next.signal_msi(from, message)
    }
}
