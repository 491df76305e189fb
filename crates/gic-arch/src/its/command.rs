//! ITS commands (IHI 0069 §5.3). Each command has 32 bytes. The command queue is a ring buffer in
//! memory.

use super::{CollectionId, RdBase};
use crate::intid::IntId;
use core::fmt;
use msi_types::{DeviceId, EventId};

/// Size of a command in bytes.
pub const COMMAND_BYTES: u32 = 32;
/// Size of a command in little-endian 64-bit words.
pub const COMMAND_WORDS: usize = 4;
/// A command, encoded as in the queue.
pub type RawCommand = [u64; COMMAND_WORDS];

/// Command number, from bits 7:0 of the first word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Opcode {
    /// Moves an event to another collection.
    Movi = 0x01,
    /// Makes an event pending.
    Int = 0x03,
    /// Clears an event's pending state.
    Clear = 0x04,
    /// Waits until earlier commands have taken effect at a redistributor.
    Sync = 0x05,
    /// Maps or unmaps a device.
    Mapd = 0x08,
    /// Maps or unmaps a collection.
    Mapc = 0x09,
    /// Maps an event to an LPI.
    Mapti = 0x0a,
    /// Maps an event to the LPI with the same number.
    Mapi = 0x0b,
    /// Invalidates the cached configuration of an event's LPI.
    Inv = 0x0c,
    /// Invalidates the cached configuration of all LPIs in a collection.
    Invall = 0x0d,
    /// Moves all pending LPIs from one redistributor to another.
    Movall = 0x0e,
    /// Unmaps an event.
    Discard = 0x0f,
}

impl Opcode {
    /// All opcodes, in ascending order.
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

    /// Returns the opcode with this number, or `None` if it is not a physical GICv3 command.
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

    /// Returns the number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns the command's name in the manual.
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

    /// Returns the bits of each word that are defined for the command; all others are RES0.
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

/// Action of MAPD and MAPC, encoded in bit V.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MapAction {
    /// Maps the identifier (V = 1).
    Map,
    /// Unmaps the identifier (V = 0). The ITS ignores the other operands.
    Unmap,
}

/// A decoded command with a known opcode. Decoding does not check the operands; the ITS must check
/// them.
///
/// ```
/// use gic_arch::its::{CollectionId, Command};
/// use msi_types::{DeviceId, EventId};
///
/// let (device, event, collection) = (DeviceId::new(0x12), EventId::new(9), CollectionId::new(3));
/// let command = Command::Mapti { device, event, intid: 8200, collection };
/// let words = command.encode(); // as a driver writes them to the queue
/// assert_eq!(words[0], 0x12_0000_000a);
/// assert_eq!(Command::decode(words), Ok(command)); // as a model reads them
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Command {
    /// Moves an event, and its pending state, to another collection.
    Movi {
        /// Device that sends the event.
        device: DeviceId,
        /// The device's event.
        event: EventId,
        /// Collection to which the event is moved.
        collection: CollectionId,
    },
    /// Makes an event pending, as if its device had sent a message.
    Int {
        /// Device that sends the event.
        device: DeviceId,
        /// The device's event.
        event: EventId,
    },
    /// Clears an event's pending state.
    Clear {
        /// Device that sends the event.
        device: DeviceId,
        /// The device's event.
        event: EventId,
    },
    /// Completes when earlier commands have taken effect at this redistributor.
    Sync {
        /// Redistributor to wait for.
        target: RdBase,
    },
    /// Assigns an interrupt translation table to a device, or unmaps the device.
    Mapd {
        /// Device to map or unmap.
        device: DeviceId,
        /// Physical address of the table, which must be 256-byte aligned and below 2^52.
        itt: u64,
        /// Number of EventID bits, minus one: 0 to 31.
        event_bits_minus_one: u8,
        /// Action to perform.
        action: MapAction,
    },
    /// Maps a collection to a redistributor, or unmaps it.
    Mapc {
        /// Collection to map or unmap.
        collection: CollectionId,
        /// Redistributor that takes the collection's interrupts.
        target: RdBase,
        /// Action to perform.
        action: MapAction,
    },
    /// Maps an event to an LPI and a collection.
    Mapti {
        /// Device that sends the event.
        device: DeviceId,
        /// The device's event.
        event: EventId,
        /// INTID to which the event is mapped. The ITS must check that it is an LPI.
        intid: u32,
        /// Collection to which the event is mapped.
        collection: CollectionId,
    },
    /// Maps an event to a collection and to the LPI with the same number.
    Mapi {
        /// Device that sends the event.
        device: DeviceId,
        /// Event of the device; its number is also the INTID.
        event: EventId,
        /// Collection to which the event is mapped.
        collection: CollectionId,
    },
    /// Makes the ITS reload the configuration of an event's LPI from memory.
    Inv {
        /// Device that sends the event.
        device: DeviceId,
        /// The device's event.
        event: EventId,
    },
    /// Makes the ITS reload the configuration of all LPIs in a collection from memory.
    Invall {
        /// Collection whose LPIs are affected.
        collection: CollectionId,
    },
    /// Moves the pending state of all LPIs from one redistributor to another.
    Movall {
        /// Redistributor from which the LPIs are moved.
        from: RdBase,
        /// Redistributor to which the LPIs are moved.
        to: RdBase,
    },
    /// Unmaps an event and clears its pending state.
    Discard {
        /// Device that sends the event.
        device: DeviceId,
        /// The device's event.
        event: EventId,
    },
}

/// Decoding error: the opcode is not a physical GICv3 command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("opcode {0:#04x} is not an ITS command")]
pub struct UnknownOpcode(pub u8);

const V: u64 = 1 << 63;
const ITT_MASK: u64 = 0x000f_ffff_ffff_ff00;

pub(super) const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "keeps the low half")]
pub(super) const fn low(word: u64) -> u32 {
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
    /// Decodes a command. Every 256-bit pattern is accepted if its opcode is known; RES0 bits are
    /// ignored.
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

    /// Encodes a command. Operands that exceed the width of their fields (see the variants) lose
    /// their upper bits.
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

    /// Returns the command's device, if any.
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

    /// Returns the command's event, if any.
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
