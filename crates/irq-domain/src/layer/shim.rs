//! Quirks of a bus between devices and their controller.

use super::{Layer, unaddressed};
use core::fmt;
use msi_types::{
    Capabilities, DoorbellPage, Fit, Granule, Isolation, MsiError, MsiMessage, NotIsolated,
    Properties, Property, RequesterId, Rewrite, Tier,
};

/// A bus's change of requester IDs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequesterRule {
    /// Not at all.
    Same,
    /// To `base + (requester << shift)`: a bridge that puts its own number beside the function's.
    Shifted {
        /// Shift in bits; must be less than 32.
        shift: u8,
        /// Added after the shift.
        base: u32,
    },
}

/// A bus's change of message addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressRule {
    /// Not at all.
    Same,
    /// Devices see memory at its physical address plus this, modulo 2^64.
    Offset(u64),
    /// A window of four bytes per sender in front of an ITS, which takes the DeviceID from the
    /// address (Socionext Synquacer's pre-ITS). The device writes its EventID at `window + 4 *
    /// DeviceID`. Every writer can take any DeviceID, so nothing is isolated behind it.
    Window {
        /// Its first byte.
        window: u64,
        /// Number of DeviceIDs that fit.
        devices: u32,
    },
}

/// A bus with quirks: none of them shows in a controller or an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShimLayer {
    name: &'static str,
    requester: RequesterRule,
    address: AddressRule,
    address_bits: u8,
    data_bits: u8,
    blocks: Capabilities,
}

impl ShimLayer {
    /// A bus without quirks.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            requester: RequesterRule::Same,
            address: AddressRule::Same,
            address_bits: 64,
            data_bits: 32,
            blocks: Capabilities::NONE,
        }
    }

    /// Makes the layer change requester IDs.
    pub const fn with_requesters(self, requester: RequesterRule) -> Self {
        Self { requester, ..self }
    }

    /// Makes the layer change the addresses of messages.
    pub const fn with_addresses(self, address: AddressRule) -> Self {
        Self { address, ..self }
    }

    /// Limits the layer to so many bits of address and data; it drops the others.
    pub const fn with_widths(self, address_bits: u8, data_bits: u8) -> Self {
        Self { address_bits, data_bits, ..self }
    }

    /// Makes the layer block capabilities of the levels below.
    pub const fn with_blocks(self, blocks: Capabilities) -> Self {
        Self { blocks, ..self }
    }

    fn error(&self, device: RequesterId, reason: &'static str) -> MsiError {
        MsiError::Bus { level: self.name, device, reason }
    }

    fn map(&self, device: RequesterId, address: u64) -> Result<u64, MsiError> {
        match self.address {
            AddressRule::Same => Ok(address),
            AddressRule::Offset(offset) => Ok(address.wrapping_add(offset)),
            AddressRule::Window { window, devices } => {
                let id = self.requester(device)?.get();
                let target = window.checked_add(u64::from(id) * 4).filter(|_| id < devices);
                target.ok_or(self.error(device, "its DeviceID is outside the window"))
            }
        }
    }
}

impl Layer for ShimLayer {
    fn tier(&self) -> Tier {
        let relieves = match self.address {
            AddressRule::Same => Properties::NONE,
            AddressRule::Offset(_) | AddressRule::Window { .. } => {
                Properties::NONE.with(Property::WideAddress)
            }
        };
        Tier::new(self.name).with_blocks(self.blocks).with_relieves(relieves)
    }

    fn requester(&self, device: RequesterId) -> Result<RequesterId, MsiError> {
        let RequesterRule::Shifted { shift, base } = self.requester else { return Ok(device) };
        let shifted = u64::from(device.get()).checked_shl(shift.into()).filter(|_| shift < 32);
        let sum = shifted.and_then(|shifted| u32::try_from(shifted + u64::from(base)).ok());
        sum.map(RequesterId::new)
            .ok_or(self.error(device, "its shifted number does not fit 32 bits"))
    }

    fn fit(&self, fit: Fit) -> Fit {
        // The address is checked when it is known as the device sees it.
        let (address_bits, rewrite) = match self.address {
            AddressRule::Same => (fit.address_bits.min(self.address_bits), fit.rewrite),
            AddressRule::Offset(_) | AddressRule::Window { .. } => (64, unaddressed(fit.rewrite)),
        };
        Fit::new(rewrite)
            .with_address_bits(address_bits)
            .with_data_bits(fit.data_bits.min(self.data_bits))
    }

    fn hold(&self, device: RequesterId, below: MsiMessage, _: Fit) -> Result<MsiMessage, MsiError> {
        let message = MsiMessage { address: self.map(device, below.address)?, ..below };
        let carried = Fit::new(Rewrite::Masked)
            .with_address_bits(self.address_bits)
            .with_data_bits(self.data_bits);
        carried.check(message)?;
        Ok(message)
    }

    fn isolation(
        &self,
        _: RequesterId,
        below: Isolation,
        _: &dyn Fn(Granule) -> DoorbellPage,
    ) -> Isolation {
        match self.address {
            AddressRule::Window { .. } => {
                Isolation::NotIsolated(NotIsolated::SharedDoorbell(self.name))
            }
            AddressRule::Same | AddressRule::Offset(_) => below,
        }
    }

    fn describe(&self, device: RequesterId, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "{}: requester {device}, below ", self.name)?;
        match self.requester(device) {
            Ok(seen) => writeln!(out, "{seen}"),
            Err(_) => writeln!(out, "nobody"),
        }
    }
}
