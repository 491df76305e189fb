//! Translation of a message by the unit, from the entries that the driver writes.

use super::irte::IrteTarget;
use super::message::RemappableMessage;
use super::table::{RemapMemory, RemapTable};
use crate::apic::ApicId;
use crate::message::{ApicMessage, DeliveryMode, DestinationFormat, MessageError};
use msi_types::{MsiMessage, RequesterId, Trigger};

/// The unit blocked a message: the fault reasons of VT-d specification §5.1. The sender is at
/// fault, or the writer of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemapFault {
    /// The sender set reserved bits, or wrote no doorbell.
    #[error("the requester's message is malformed: {0}")]
    BadRequest(MessageError),
    /// The sender's index is beyond the table.
    #[error("the requester named entry {index}, beyond the table")]
    IndexBeyondTable {
        /// The index.
        index: u32,
    },
    /// The sender's entry is absent.
    #[error("the requester named entry {index}, which is not present")]
    NotPresent {
        /// The entry.
        index: u32,
    },
    /// The entry is one that this unit does not know.
    #[error("entry {index} has reserved or unsupported fields")]
    BadEntry {
        /// The entry.
        index: u32,
    },
    /// The message names no entry.
    #[error("the requester's message is in the compatibility format, which is blocked")]
    CompatibilityBlocked,
    /// The entry is another's.
    #[error("requester {requester} named entry {index}, which is another's")]
    WrongSource {
        /// The requester.
        requester: RequesterId,
        /// The entry.
        index: u32,
    },
}

impl RemapFault {
    /// The code in a fault record.
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

    /// The entry, where the message named one: bits 63:48 of a fault record's information. 0
    /// otherwise, as there.
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
    /// Translates a requester's message as the unit does, to an APIC and the interrupt there.
    ///
    /// Context: any.
    ///
    /// The caller records faults, unless the entry (FPD) forbids it: see [`entry`](Self::entry).
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
    /// The APIC and what happens there, where that is all there is to it: a physical destination
    /// and an edge.
    pub fn physical(&self) -> Option<(ApicId, DeliveryMode)> {
        let plain =
            self.mode == crate::message::DestinationMode::Physical && self.trigger == Trigger::Edge;
        plain.then_some((self.destination, self.delivery))
    }
}
