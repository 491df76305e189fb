//! Configuration space of a PCI function, as sysfs shows it. Linux shows only the first 64 bytes to
//! users other than root.

use msi_types::MsiMessage;
use msi_types::pci::{msi, msix};

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const CLASS: usize = 0x09;
const HEADER_TYPE: usize = 0x0e;
const SECONDARY_BUS: usize = 0x19;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_PIN: usize = 0x3d;
/// Length in bytes of the part that all users may read.
const COMMON: usize = 0x40;
/// Maximum number of capabilities: one for every four bytes after the part that all users may read.
const MAX_CAPABILITIES: usize = (256 - COMMON) / 4;
/// Capability ID of power management, and the offset of its status (PMCSR).
const POWER_MANAGEMENT: u8 = 0x01;
const POWER_STATUS: usize = 4;
/// Capability ID of PCI Express.
const EXPRESS: u8 = 0x10;

/// The readable part of a function's configuration space.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Config {
    bytes: Vec<u8>,
}

/// Bits of the Command register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CommandBits {
    pub(super) memory: bool,
    pub(super) bus_master: bool,
    pub(super) intx_disable: bool,
}

/// The function's MSI capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Msi {
    pub(super) enable: bool,
    /// Message of the first vector.
    pub(super) message: MsiMessage,
    /// Mask bits by vector.
    pub(super) mask: u32,
    /// Pending bits by vector.
    pub(super) pending: u32,
}

/// Kind of a bridge, which determines the requester IDs of messages from functions below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BridgeKind {
    /// A PCI Express port, which leaves requester IDs unchanged.
    Port,
    /// A bridge from PCI Express to a conventional bus, which replaces requester IDs with its
    /// secondary bus number, device 0, function 0.
    ToConventional,
    /// A bridge on a conventional bus, which replaces requester IDs with its own.
    Conventional,
}

impl Config {
    pub(super) const fn new(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    /// Returns `true` if the readable part includes the capabilities.
    pub(super) fn is_whole(&self) -> bool {
        self.bytes.len() > COMMON
    }

    /// Returns `true` if the function does not respond: an unsupported request reads as all ones.
    pub(super) fn is_gone(&self) -> bool {
        self.is_virtual() && self.word(COMMAND) == Some(u16::MAX)
    }

    /// Returns `true` for a virtual function, whose vendor reads as all ones (SR-IOV 1.1, §3.4.1.1),
    /// and for a function that does not respond.
    fn is_virtual(&self) -> bool {
        self.word(0) == Some(u16::MAX)
    }

    /// Returns the power state, 0 to 3 for D0 to D3hot, in the power management capability.
    pub(super) fn power_state(&self) -> Option<u8> {
        let base = self.capability(POWER_MANAGEMENT)?;
        Some(self.byte(base + POWER_STATUS)? & 3)
    }

    pub(super) fn command(&self) -> Option<CommandBits> {
        let bits = self.word(COMMAND)?;
        let bit = |number: u32| bits >> number & 1 == 1;
        // The physical function enables a virtual function's memory (SR-IOV 1.1, §3.4.1.3).
        let memory = bit(1) || self.is_virtual();
        Some(CommandBits { memory, bus_master: bit(2), intx_disable: bit(10) })
    }

    /// Returns `true` if the function has a pending INTx interrupt (Interrupt Status). The function
    /// asserts its pin unless `intx_disable` is set.
    pub(super) fn intx_status(&self) -> Option<bool> {
        Some(self.word(STATUS)? >> 3 & 1 == 1)
    }

    /// Returns `true` if the function has an interrupt pin.
    pub(super) fn has_pin(&self) -> bool {
        self.byte(INTERRUPT_PIN).is_some_and(|pin| (1..=4).contains(&pin))
    }

    /// Returns the class, subclass and programming interface as a number.
    pub(super) fn class(&self) -> Option<u32> {
        let [interface, subclass, class] = *self.bytes.get(CLASS..CLASS + 3)? else { return None };
        Some(u32::from_be_bytes([0, class, subclass, interface]))
    }

    /// Returns the number of the bus below this function, if it is a bridge.
    pub(super) fn secondary_bus(&self) -> Option<u8> {
        (self.byte(HEADER_TYPE)? & 0x7f == 1).then(|| self.byte(SECONDARY_BUS))?
    }

    /// Returns the kind of the bridge. Treats a bridge whose capabilities cannot be read as a port.
    pub(super) fn bridge_kind(&self) -> BridgeKind {
        /// Device/Port Type of a bridge from PCI Express to PCI.
        const TO_PCI: u16 = 7;
        /// Device/Port Type of a bridge from PCI to PCI Express.
        const TO_EXPRESS: u16 = 8;
        let Some(express) = self.capability(EXPRESS) else {
            return if self.is_whole() { BridgeKind::Conventional } else { BridgeKind::Port };
        };
        match self.word(express + 2).map(|flags| flags >> 4 & 0xf) {
            Some(TO_PCI) => BridgeKind::ToConventional,
            Some(TO_EXPRESS) => BridgeKind::Conventional,
            _ => BridgeKind::Port,
        }
    }

    pub(super) fn msi(&self) -> Option<Msi> {
        let base = self.capability(msi::CAPABILITY_ID)?;
        let at = |offset: u16| self.double(base + usize::from(offset));
        let control = msi::Control::from_bits(self.word(base + usize::from(msi::CONTROL))?);
        let layout = msi::Layout::new(control);
        let low = u64::from(at(msi::ADDRESS_LOW)?);
        let high = layout.address_high().and_then(at).map_or(0, u64::from);
        let data = self.word(base + usize::from(layout.data()))?;
        Some(Msi {
            enable: control.enable(),
            message: MsiMessage { address: high << 32 | low, data: data.into() },
            mask: layout.mask().and_then(at).unwrap_or(0),
            pending: layout.pending().and_then(at).unwrap_or(0),
        })
    }

    pub(super) fn msix(&self) -> Option<msix::Control> {
        let base = self.capability(msix::CAPABILITY_ID)?;
        Some(msix::Control::from_bits(self.word(base + usize::from(msix::CONTROL))?))
    }

    /// Returns the offset of the first capability with this ID.
    fn capability(&self, id: u8) -> Option<usize> {
        let mut next = self.byte(CAPABILITIES)?;
        for _ in 0..MAX_CAPABILITIES {
            let place = usize::from(next & !3);
            if place < COMMON {
                return None;
            }
            if self.byte(place)? == id {
                return Some(place);
            }
            next = self.byte(place + 1)?;
        }
        None
    }

    fn byte(&self, offset: usize) -> Option<u8> {
        self.bytes.get(offset).copied()
    }

    fn word(&self, offset: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.bytes.get(offset..offset + 2)?.try_into().ok()?))
    }

    fn double(&self, offset: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes.get(offset..offset + 4)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the configuration space of a function with `capabilities`, placed every 0x20 bytes
    /// from 0x40 on.
    fn function(capabilities: &[&[u8]]) -> Config {
        let mut bytes = vec![0; 256];
        bytes[CAPABILITIES] = if capabilities.is_empty() { 0 } else { 0x40 };
        for (index, capability) in capabilities.iter().enumerate() {
            let place = 0x40 + 0x20 * index;
            bytes[place..place + capability.len()].copy_from_slice(capability);
            bytes[place + 1] =
                if index + 1 < capabilities.len() { capability_place(index + 1) } else { 0 };
        }
        Config::new(bytes)
    }

    fn capability_place(index: usize) -> u8 {
        u8::try_from(0x40 + 0x20 * index).unwrap()
    }

    #[test]
    fn msi_and_msix_are_found_in_the_capability_list() {
        let msi = [5, 0, 0x81, 0, 0x40, 0, 9, 8, 1, 0, 0, 0, 7, 0];
        let config = function(&[&msi, &[0x11, 0, 3, 0xc0]]);
        let found = config.msi().unwrap();
        assert_eq!(found.message, MsiMessage { address: 0x1_0809_0040, data: 7 });
        assert!(found.enable);
        let msix = config.msix().unwrap();
        assert_eq!((msix.table_size(), msix.enable(), msix.function_mask()), (4, true, true));
    }

    #[test]
    fn bridge_kinds_are_recognized_from_configuration_space() {
        let port = function(&[&[EXPRESS, 0, 0x42, 0]]);
        let to_pci = function(&[&[EXPRESS, 0, 0x72, 0]]);
        assert_eq!(port.bridge_kind(), BridgeKind::Port);
        assert_eq!(to_pci.bridge_kind(), BridgeKind::ToConventional);
        assert_eq!(function(&[]).bridge_kind(), BridgeKind::Conventional);
        assert_eq!(Config::new(vec![0; 64]).bridge_kind(), BridgeKind::Port);
    }

    #[test]
    fn malformed_configuration_space_has_no_capability() {
        let mut circle = vec![0; 256];
        (circle[CAPABILITIES], circle[0x41]) = (0x40, 0x40);
        for bytes in [vec![], vec![0xff; 64], vec![0xff; 255], vec![0xff; 256], circle] {
            let config = Config::new(bytes);
            assert_eq!((config.msi(), config.msix().map(|found| found.enable())), (None, None));
        }
        let cut = Config::new([&[0; 0x34][..], &[0xfc], &[0; 0xc7], &[5, 0, 0x80, 0]].concat());
        assert_eq!(cut.msi(), None);
    }
}
