//! The remappable message format (VT-d specification §5.1).

use crate::message::{DOORBELL_TOP, MessageError};
use bitfield_struct::bitfield;
use msi_types::MsiMessage;

/// Low word of the address.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
struct RemappableAddress {
    #[bits(2)]
    __: u8,
    handle_15: bool,
    subhandle_valid: bool,
    remappable: bool,
    #[bits(15)]
    handle_14_0: u16,
    #[bits(12)]
    top: u16,
}

/// A message in the remappable format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RemappableMessage {
    /// Index into the table.
    pub handle: u16,
    /// Value in the data that is added to the handle (a MultiMSI function writes its vector's
    /// number there). `None` if the data is ignored.
    pub subhandle: Option<u16>,
}

impl RemappableMessage {
    /// Decodes an address and data that a device wrote. The two low bits of the address are
    /// ignored, as is the data of a message without a sub-handle.
    ///
    /// # Errors
    /// Returns [`MessageError::NotADoorbell`] for an address outside the doorbells,
    /// [`MessageError::Compatibility`] for a message in the compatibility format, or
    /// [`MessageError::Reserved`] for data beyond 16 bits.
    pub fn decode(message: MsiMessage) -> Result<Self, MessageError> {
        let address = RemappableAddress::from(message.address_low());
        if message.address_high() != 0 || address.top() != DOORBELL_TOP {
            return Err(MessageError::NotADoorbell(message.address));
        }
        if !address.remappable() {
            return Err(MessageError::Compatibility);
        }
        let handle = u16::from(address.handle_15()) << 15 | address.handle_14_0();
        let subhandle = if address.subhandle_valid() {
            Some(u16::try_from(message.data).map_err(|_| MessageError::Reserved(message))?)
        } else {
            None
        };
        Ok(Self { handle, subhandle })
    }

    /// Returns the index of the message's table entry. The index can be as high as 131070, which is
    /// beyond the end of any table.
    pub const fn index(self) -> u32 {
        match self.subhandle {
            Some(subhandle) => self.handle as u32 + subhandle as u32,
            None => self.handle as u32,
        }
    }

    /// Returns the address and data of this message.
    pub fn encode(self) -> MsiMessage {
        let address = RemappableAddress::new()
            .with_handle_15(self.handle >> 15 != 0)
            .with_subhandle_valid(self.subhandle.is_some())
            .with_remappable(true)
            .with_handle_14_0(self.handle & 0x7fff)
            .with_top(DOORBELL_TOP);
        MsiMessage { address: u32::from(address).into(), data: self.subhandle.unwrap_or(0).into() }
    }
}
