//! The remappable message format (VT-d specification §5.1), and the translation of messages as the
//! unit does it, using the entries that the driver wrote.

use super::table::{IrteTarget, RemapMemory, RemapTable};
use crate::message::{
    ApicId, ApicMessage, DOORBELL_TOP, DeliveryMode, DestinationFormat, MessageError,
};
use bitfield_struct::bitfield;
use msi_types::{MsiMessage, RequesterId, Trigger};

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

/// Reason why the unit blocked a message (fault reasons of VT-d specification §5.1). Either the
/// sender or the writer of the table is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemapFault {
    /// The sender set reserved bits, or did not write to a doorbell.
    #[error("the requester's message is malformed: {0}")]
    BadRequest(MessageError),
    /// The index in the message is beyond the end of the table.
    #[error("the requester named entry {index}, beyond the table")]
    IndexBeyondTable {
        /// Index in the message.
        index: u32,
    },
    /// The message's entry is absent.
    #[error("the requester named entry {index}, which is not present")]
    NotPresent {
        /// Index of the entry.
        index: u32,
    },
    /// The entry has fields that the unit does not support.
    #[error("entry {index} has reserved or unsupported fields")]
    BadEntry {
        /// Index of the entry.
        index: u32,
    },
    /// The message is in the compatibility format.
    #[error("the requester's message is in the compatibility format, which is blocked")]
    CompatibilityBlocked,
    /// The entry belongs to a different requester.
    #[error("requester {requester} named entry {index}, which belongs to another requester")]
    WrongSource {
        /// Sender of the message.
        requester: RequesterId,
        /// Index of the entry.
        index: u32,
    },
}

impl RemapFault {
    /// Returns the fault reason, as in a fault record.
    pub const fn reason(self) -> u8 {
        match self {
            Self::BadRequest(_) => 0x20,
            Self::IndexBeyondTable { .. } => 0x21,
            Self::NotPresent { .. } => 0x22,
            Self::BadEntry { .. } => 0x24,
            Self::CompatibilityBlocked => 0x25,
            Self::WrongSource { .. } => 0x26,
        }
    }

    /// Returns the index of the message's entry, or 0 if it has none, as in bits 63:48 of a fault
    /// record's information.
    pub const fn index(self) -> u32 {
        match self {
            Self::BadRequest(_) | Self::CompatibilityBlocked => 0,
            Self::IndexBeyondTable { index }
            | Self::NotPresent { index }
            | Self::BadEntry { index }
            | Self::WrongSource { index, .. } => index,
        }
    }
}

impl<M: RemapMemory> RemapTable<M> {
    /// Translates a requester's message as the unit does, and returns its target.
    ///
    /// The caller must record faults, unless the entry has FPD set: see [`entry`](Self::entry).
    ///
    /// Context: any.
    pub fn translate(
        &self,
        requester: RequesterId,
        message: MsiMessage,
    ) -> Result<IrteTarget, RemapFault> {
        let named = match RemappableMessage::decode(message) {
            Ok(named) => named,
            Err(MessageError::Compatibility) => return self.pass(message),
            Err(error) => return Err(RemapFault::BadRequest(error)),
        };
        let index = named.index();
        let entry = self.entry(index).ok_or(RemapFault::IndexBeyondTable { index })?;
        if !entry.low.present() {
            return Err(RemapFault::NotPresent { index });
        }
        let bad = RemapFault::BadEntry { index };
        let (target, source) =
            IrteTarget::decode(entry.low, self.mode()).zip(entry.source()).ok_or(bad)?;
        let admitted = u16::try_from(requester.get()).is_ok_and(|id| source.admits(id));
        if admitted { Ok(target) } else { Err(RemapFault::WrongSource { requester, index }) }
    }

    fn pass(&self, message: MsiMessage) -> Result<IrteTarget, RemapFault> {
        if self.blocks_compatibility_format() {
            return Err(RemapFault::CompatibilityBlocked);
        }
        let passed = ApicMessage::decode(message, DestinationFormat::Xapic)
            .map_err(RemapFault::BadRequest)?;
        Ok(IrteTarget {
            destination: passed.destination,
            mode: passed.mode,
            redirection: passed.redirection,
            delivery: passed.delivery,
            trigger: match passed.signal {
                crate::message::Signal::Edge => Trigger::Edge,
                crate::message::Signal::Assert | crate::message::Signal::Deassert => Trigger::Level,
            },
        })
    }
}

impl IrteTarget {
    /// Returns the target APIC and the delivery mode, if the target is an edge with a physical
    /// destination.
    pub fn physical(&self) -> Option<(ApicId, DeliveryMode)> {
        let plain =
            self.mode == crate::message::DestinationMode::Physical && self.trigger == Trigger::Edge;
        plain.then_some((self.destination, self.delivery))
    }
}
