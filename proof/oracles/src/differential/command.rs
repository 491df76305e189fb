//! The ITS commands that cases send, encoded by hand from the figures in IHI 0069 §5.3.

use super::address_map::translation_table;

/// Four little-endian words.
pub(super) type Words = [u64; 4];

/// A command. A number that is out of range is truncated to the width of its field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Command {
    /// Maps a device's translation table with 2^(size + 1) events.
    Mapd { device: u32, size: u8 },
    /// Unmaps a device.
    Unmapd { device: u32 },
    /// Maps a collection.
    Mapc { collection: u16, target: u16 },
    /// Unmaps a collection.
    Unmapc { collection: u16 },
    /// Maps an event.
    Mapti { device: u32, event: u32, intid: u32, collection: u16 },
    /// Maps an event to the INTID that equals its EventID.
    Mapi { device: u32, event: u32, collection: u16 },
    /// Moves an event.
    Movi { device: u32, event: u32, collection: u16 },
    /// Unmaps an event.
    Discard { device: u32, event: u32 },
    /// Signals an event.
    Int { device: u32, event: u32 },
    /// Clears an event's pending state.
    Clear { device: u32, event: u32 },
    /// Invalidates an event's configuration.
    Inv { device: u32, event: u32 },
    /// Invalidates a collection's configuration.
    Invall { collection: u16 },
    /// Moves all pending interrupts to another redistributor.
    Movall { from: u16, to: u16 },
    /// Waits for a redistributor to complete earlier commands.
    Sync { target: u16 },
    /// A command with an opcode that doesn't exist on a physical GICv3, with arbitrary operands.
    Unknown { words: Words },
}

impl Command {
    pub(super) fn encode(self) -> Words {
        let of = |opcode: u64, device: u32| opcode | u64::from(device) << 32;
        let valid = 1u64 << 63;
        match self {
            Self::Mapd { device, size } => {
                [of(0x08, device), u64::from(size & 0x1f), valid | translation_table(device), 0]
            }
            Self::Unmapd { device } => [of(0x08, device), 0, 0, 0],
            Self::Mapc { collection, target } => {
                [0x09, 0, valid | u64::from(target) << 16 | u64::from(collection), 0]
            }
            Self::Unmapc { collection } => [0x09, 0, collection.into(), 0],
            Self::Mapti { device, event, intid, collection } => {
                [of(0x0a, device), u64::from(intid) << 32 | u64::from(event), collection.into(), 0]
            }
            Self::Mapi { device, event, collection } => {
                [of(0x0b, device), event.into(), collection.into(), 0]
            }
            Self::Movi { device, event, collection } => {
                [of(0x01, device), event.into(), collection.into(), 0]
            }
            Self::Discard { device, event } => [of(0x0f, device), event.into(), 0, 0],
            Self::Int { device, event } => [of(0x03, device), event.into(), 0, 0],
            Self::Clear { device, event } => [of(0x04, device), event.into(), 0, 0],
            Self::Inv { device, event } => [of(0x0c, device), event.into(), 0, 0],
            Self::Invall { collection } => [0x0d, 0, collection.into(), 0],
            Self::Movall { from, to } => [0x0e, 0, u64::from(from) << 16, u64::from(to) << 16],
            Self::Sync { target } => [0x05, 0, u64::from(target) << 16, 0],
            Self::Unknown { words } => words,
        }
    }

    /// Encodes the command, with the bits of `ones` in fields that are reserved in this command.
    pub(super) fn encode_with(self, ones: u32) -> Words {
        let [first, mut second, third, mut fourth] = self.encode();
        let ones = u64::from(ones);
        if matches!(
            self,
            Self::Mapc { .. } | Self::Invall { .. } | Self::Sync { .. } | Self::Movall { .. }
        ) {
            second |= ones << 16 | ones;
        }
        if !matches!(self, Self::Movall { .. }) {
            fourth |= ones << 32 | ones;
        }
        [first | ones & 0xffff_ff00, second, third, fourth]
    }
}
