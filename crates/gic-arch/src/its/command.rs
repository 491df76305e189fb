//! ITS commands (IHI 0069 §5.3): 32 bytes each, in a ring of memory.

use super::{CollectionId, RdBase};
use crate::intid::IntId;
use core::fmt;
use msi_types::{DeviceId, EventId};

/// Size of a command in bytes.
pub const COMMAND_BYTES: u32 = 32;
/// Size of a command in little-endian 64-bit words.
pub const COMMAND_WORDS: usize = 4;
/// A command as it stands in the queue.
pub type RawCommand = [u64; COMMAND_WORDS];

/// Command number: bits 7:0 of the first word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Opcode {
    /// Move an event to another collection.
    Movi = 0x01,
    /// Make an event pending.
    Int = 0x03,
    /// Remove an event's pending state.
    Clear = 0x04,
    /// Wait for effects at a redistributor.
    Sync = 0x05,
    /// Map or unmap a device.
    Mapd = 0x08,
    /// Map or unmap a collection.
    Mapc = 0x09,
    /// Map an event to an LPI.
    Mapti = 0x0a,
    /// Map an event to the LPI of the same number.
    Mapi = 0x0b,
    /// Reload the configuration of an event's LPI.
    Inv = 0x0c,
    /// Reload the configuration of all LPIs of a collection.
    Invall = 0x0d,
    /// Move all pending LPIs of a redistributor to another.
    Movall = 0x0e,
    /// Unmap an event.
    Discard = 0x0f,
}

impl Opcode {
    /// All of them, by number.
    pub const ALL: [Self; 12] = [
        Self::Movi,
        Self::Int,
        Self::Clear,
        Self::Sync,
        Self::Mapd,
        Self::Mapc,
        Self::Mapti,
        Self::Mapi,
        Self::Inv,
        Self::Invall,
        Self::Movall,
        Self::Discard,
    ];

    /// The opcode with this number; `None` if it is no physical GICv3 command.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0x01 => Self::Movi,
            0x03 => Self::Int,
            0x04 => Self::Clear,
            0x05 => Self::Sync,
            0x08 => Self::Mapd,
            0x09 => Self::Mapc,
            0x0a => Self::Mapti,
            0x0b => Self::Mapi,
            0x0c => Self::Inv,
            0x0d => Self::Invall,
            0x0e => Self::Movall,
            0x0f => Self::Discard,
            _ => return None,
        })
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The manual's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Movi => "MOVI",
            Self::Int => "INT",
            Self::Clear => "CLEAR",
            Self::Sync => "SYNC",
            Self::Mapd => "MAPD",
            Self::Mapc => "MAPC",
            Self::Mapti => "MAPTI",
            Self::Mapi => "MAPI",
            Self::Inv => "INV",
            Self::Invall => "INVALL",
            Self::Movall => "MOVALL",
            Self::Discard => "DISCARD",
        }
    }

    /// The bits of each word that the command gives a meaning to; all others are RES0.
    pub const fn defined_bits(self) -> RawCommand {
        const DEVICE: u64 = 0xffff_ffff_0000_00ff;
        const EVENT: u64 = 0xffff_ffff;
        const ICID: u64 = 0xffff;
        const RDBASE: u64 = 0x000f_ffff_ffff_0000;
        const VALID: u64 = 1 << 63;
        match self {
            Self::Mapd => [DEVICE, 0x1f, VALID | 0x000f_ffff_ffff_ff00, 0],
            Self::Mapc => [0xff, 0, VALID | RDBASE | ICID, 0],
            Self::Mapti => [DEVICE, u64::MAX, ICID, 0],
            Self::Mapi | Self::Movi => [DEVICE, EVENT, ICID, 0],
            Self::Discard | Self::Int | Self::Clear | Self::Inv => [DEVICE, EVENT, 0, 0],
            Self::Invall => [0xff, 0, ICID, 0],
            Self::Movall => [0xff, 0, RDBASE, RDBASE],
            Self::Sync => [0xff, 0, RDBASE, 0],
        }
    }
}

/// Bit V of MAPD and MAPC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MapAction {
    /// V = 1.
    Map,
    /// V = 0: the other operands but the identifier are ignored.
    Unmap,
}

/// A command that means something. Whether its operands fit this ITS is the ITS's to judge.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Command {
    /// Moves an event, and its pending state, to another collection.
    Movi {
        /// The device.
        device: DeviceId,
        /// Its event.
        event: EventId,
        /// The new collection.
        collection: CollectionId,
    },
    /// Makes an event pending, as its device would.
    Int {
        /// The device.
        device: DeviceId,
        /// Its event.
        event: EventId,
    },
    /// Removes an event's pending state.
    Clear {
        /// The device.
        device: DeviceId,
        /// Its event.
        event: EventId,
    },
    /// Completes when the effects of earlier commands at this redistributor are there.
    Sync {
        /// The redistributor.
        target: RdBase,
    },
    /// Gives a device its interrupt translation table, or takes it away.
    Mapd {
        /// The device.
        device: DeviceId,
        /// Physical address of the table: 256-byte aligned, below 2^52.
        itt: u64,
        /// EventID bits, minus one: 0 to 31.
        event_bits_minus_one: u8,
        /// Map or unmap.
        action: MapAction,
    },
    /// Ties a collection to a redistributor, or unmaps it.
    Mapc {
        /// The collection.
        collection: CollectionId,
        /// The redistributor.
        target: RdBase,
        /// Map or unmap.
        action: MapAction,
    },
    /// Maps an event to an LPI and a collection.
    Mapti {
        /// The device.
        device: DeviceId,
        /// Its event.
        event: EventId,
        /// The INTID, unchecked: whether it is an LPI in range is judged by the ITS.
        intid: u32,
        /// The collection.
        collection: CollectionId,
    },
    /// Maps an event to the LPI of the same number, and a collection.
    Mapi {
        /// The device.
        device: DeviceId,
        /// Its event, and the INTID.
        event: EventId,
        /// The collection.
        collection: CollectionId,
    },
    /// Reloads the configuration of an event's LPI from memory.
    Inv {
        /// The device.
        device: DeviceId,
        /// Its event.
        event: EventId,
    },
    /// Reloads the configuration of all LPIs of a collection from memory.
    Invall {
        /// The collection.
        collection: CollectionId,
    },
    /// Moves the pending state of all LPIs from one redistributor to another.
    Movall {
        /// From here.
        from: RdBase,
        /// To here.
        to: RdBase,
    },
    /// Unmaps an event and removes its pending state.
    Discard {
        /// The device.
        device: DeviceId,
        /// Its event.
        event: EventId,
    },
}

/// The opcode is no physical GICv3 command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:#04x} is no ITS command")]
pub struct UnknownOpcode(pub u8);

const V: u64 = 1 << 63;
const ITT_MASK: u64 = 0x000f_ffff_ffff_ff00;

const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
const fn low(word: u64) -> u32 {
    word as u32
}

const fn icid(word: u64) -> CollectionId {
    let bytes = word.to_le_bytes();
    CollectionId::new(u16::from_le_bytes([bytes[0], bytes[1]]))
}

const fn rdbase(word: u64) -> RdBase {
    RdBase::from_field(word >> 16)
}

const fn action(word: u64) -> MapAction {
    if word & V != 0 { MapAction::Map } else { MapAction::Unmap }
}

impl Command {
    /// Reads a command. Total: every 256-bit pattern is a command or names its unknown opcode; RES0
    /// bits are ignored.
    pub const fn decode(raw: RawCommand) -> Result<Self, UnknownOpcode> {
        let [w0, w1, w2, w3] = raw;
        let Some(opcode) = Opcode::from_number(w0.to_le_bytes()[0]) else {
            return Err(UnknownOpcode(w0.to_le_bytes()[0]));
        };
        let device = DeviceId::new(high(w0));
        let event = EventId::new(low(w1));
        let collection = icid(w2);
        Ok(match opcode {
            Opcode::Movi => Self::Movi { device, event, collection },
            Opcode::Int => Self::Int { device, event },
            Opcode::Clear => Self::Clear { device, event },
            Opcode::Sync => Self::Sync { target: rdbase(w2) },
            Opcode::Mapd => Self::Mapd {
                device,
                itt: w2 & ITT_MASK,
                event_bits_minus_one: w1.to_le_bytes()[0] & 0x1f,
                action: action(w2),
            },
            Opcode::Mapc => Self::Mapc { collection, target: rdbase(w2), action: action(w2) },
            Opcode::Mapti => Self::Mapti { device, event, intid: high(w1), collection },
            Opcode::Mapi => Self::Mapi { device, event, collection },
            Opcode::Inv => Self::Inv { device, event },
            Opcode::Invall => Self::Invall { collection },
            Opcode::Movall => Self::Movall { from: rdbase(w2), to: rdbase(w3) },
            Opcode::Discard => Self::Discard { device, event },
        })
    }

    /// Writes a command. Operands beyond their fields' widths (see the variants) lose their upper
    /// bits.
    pub const fn encode(self) -> RawCommand {
        const fn device_word(opcode: Opcode, device: DeviceId) -> u64 {
            opcode.number() as u64 | (device.get() as u64) << 32
        }
        const fn valid(action: MapAction) -> u64 {
            match action {
                MapAction::Map => V,
                MapAction::Unmap => 0,
            }
        }
        let opcode = self.opcode();
        let bare = opcode.number() as u64;
        match self {
            Self::Movi { device, event, collection } | Self::Mapi { device, event, collection } => {
                [device_word(opcode, device), event.get() as u64, collection.get() as u64, 0]
            }
            Self::Int { device, event }
            | Self::Clear { device, event }
            | Self::Inv { device, event }
            | Self::Discard { device, event } => {
                [device_word(opcode, device), event.get() as u64, 0, 0]
            }
            Self::Sync { target } => [bare, 0, target.field() << 16, 0],
            Self::Mapd { device, itt, event_bits_minus_one, action } => [
                device_word(opcode, device),
                (event_bits_minus_one & 0x1f) as u64,
                valid(action) | (itt & ITT_MASK),
                0,
            ],
            Self::Mapc { collection, target, action } => {
                [bare, 0, valid(action) | (target.field() << 16) | collection.get() as u64, 0]
            }
            Self::Mapti { device, event, intid, collection } => [
                device_word(opcode, device),
                event.get() as u64 | (intid as u64) << 32,
                collection.get() as u64,
                0,
            ],
            Self::Invall { collection } => [bare, 0, collection.get() as u64, 0],
            Self::Movall { from, to } => [bare, 0, from.field() << 16, to.field() << 16],
        }
    }

    /// Returns the number of this command.
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::Movi { .. } => Opcode::Movi,
            Self::Int { .. } => Opcode::Int,
            Self::Clear { .. } => Opcode::Clear,
            Self::Sync { .. } => Opcode::Sync,
            Self::Mapd { .. } => Opcode::Mapd,
            Self::Mapc { .. } => Opcode::Mapc,
            Self::Mapti { .. } => Opcode::Mapti,
            Self::Mapi { .. } => Opcode::Mapi,
            Self::Inv { .. } => Opcode::Inv,
            Self::Invall { .. } => Opcode::Invall,
            Self::Movall { .. } => Opcode::Movall,
            Self::Discard { .. } => Opcode::Discard,
        }
    }

    /// The device that the command names, if it names one.
    pub const fn device(self) -> Option<DeviceId> {
        match self {
            Self::Movi { device, .. }
            | Self::Int { device, .. }
            | Self::Clear { device, .. }
            | Self::Mapd { device, .. }
            | Self::Mapti { device, .. }
            | Self::Mapi { device, .. }
            | Self::Inv { device, .. }
            | Self::Discard { device, .. } => Some(device),
            Self::Sync { .. } | Self::Mapc { .. } | Self::Invall { .. } | Self::Movall { .. } => {
                None
            }
        }
    }

    /// The event that the command names, if it names one.
    pub const fn event(self) -> Option<EventId> {
        match self {
            Self::Movi { event, .. }
            | Self::Int { event, .. }
            | Self::Clear { event, .. }
            | Self::Mapti { event, .. }
            | Self::Mapi { event, .. }
            | Self::Inv { event, .. }
            | Self::Discard { event, .. } => Some(event),
            Self::Sync { .. }
            | Self::Mapc { .. }
            | Self::Mapd { .. }
            | Self::Invall { .. }
            | Self::Movall { .. } => None,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.opcode().name())?;
        if let Some(device) = self.device() {
            write!(f, " device {device}")?;
        }
        if let Some(event) = self.event() {
            write!(f, " event {event}")?;
        }
        match self {
            Self::Mapti { intid, collection, .. } => {
                write!(f, " to {} in collection {collection}", IntId::new(*intid))
            }
            Self::Mapi { collection, .. }
            | Self::Movi { collection, .. }
            | Self::Invall { collection }
            | Self::Mapc { collection, .. } => write!(f, " collection {collection}"),
            _ => Ok(()),
        }
    }
}
