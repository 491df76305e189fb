//! Bus quirks between devices and their controller: rewritten requester IDs and addresses, and
//! narrow data or address paths.

use super::{Layer, unaddressed};
use core::fmt;
use msi_types::{
    Capabilities, DoorbellPage, Fit, Granule, Isolation, MsiError, MsiMessage, NotIsolated,
    Properties, Property, RequesterId, Rewrite, Tier,
};

/// A bus's change to requester IDs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequesterRule {
    /// No change.
    Same,
    /// The requester ID becomes `base + (requester << shift)`. Some bridges combine their own
    /// number with the function's ID in this way.
    Shifted {
        /// Shift in bits; must be less than 32.
        shift: u8,
        /// Number to add after the shift.
        base: u32,
    },
}

/// A bus's change to message addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressRule {
    /// No change.
    Same,
    /// Devices see memory at its physical address plus this offset (modulo 2^64).
    Offset(u64),
    /// A window in front of an ITS, with four bytes per sender; the ITS derives the DeviceID from
    /// the address (Socionext Synquacer's pre-ITS). A device writes its EventID to `window + 4 *
    /// DeviceID`. A device can also write to another DeviceID's word, so devices behind the window
    /// are not isolated.
    Window {
        /// Address of the first byte.
        window: u64,
        /// Number of DeviceIDs that fit in the window.
        devices: u32,
    },
}

/// A bus with quirks that controllers and endpoints do not see.
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
    /// Creates a bus with no quirks.
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

    /// Sets how the bus changes requester IDs.
    pub const fn with_requesters(self, requester: RequesterRule) -> Self {
        Self { requester, ..self }
    }

    /// Sets how the bus changes message addresses.
    pub const fn with_addresses(self, address: AddressRule) -> Self {
        Self { address, ..self }
    }

    /// Sets the number of address and data bits that the bus carries. The bus drops all higher
    /// bits.
    pub const fn with_widths(self, address_bits: u8, data_bits: u8) -> Self {
        Self { address_bits, data_bits, ..self }
    }

    /// Blocks capabilities of the levels below.
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
        // If the layer changes addresses, the result is not known yet; `hold` checks it.
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
            Err(_) => writeln!(out, "none"),
        }
    }
}
