//! The steps that a case consists of.

use super::command::Command;

/// A single action by software or a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Reads a register.
    Load { at: u64, width: Width },
    /// Writes a register.
    Store { at: u64, width: Width, value: u64 },
    /// Writes a half of `GICR_PROPBASER` or `GICR_PENDBASER`, with LPIs disabled.
    Tables { cpu: u16, offset: u64, value: u64 },
    /// Drives a GIC input, identified by its protocol number.
    Line { input: u16, level: u8 },
    /// Writes an LPI's configuration byte, identified by its offset in the table.
    Configure { offset: u16, byte: u8 },
    /// Sets a byte of a CPU's pending table while its LPIs are disabled, and then enables them.
    Preset { cpu: u16, offset: u16, byte: u8 },
    /// Assigns tables to the ITS and the redistributors, and enables them.
    Start(Start),
    /// Posts a command to the ITS.
    Command(Command),
    /// Posts a command with ones in reserved bits.
    Reserved { command: Command, ones: u32 },
    /// Posts this many commands with an invalid opcode, all together.
    Nothing { commands: u8 },
    /// Sends a message with DeviceID 0.
    Message { event: u32, width: Width },
    /// Disables a CPU's LPIs, which makes it write its pending table; compares the table; then
    /// enables the LPIs again.
    Pending { cpu: u16 },
    /// Enables everything that a CPU needs to be interrupted, and this many LPIs.
    Deliver { lpis: u16 },
    /// Lets a CPU acknowledge its pending interrupts.
    Acknowledge { cpu: u16 },
    /// Clears or sets `GITS_CTLR.Enabled`.
    Enable { its: bool },
    /// Assigns the queue to the ITS again, with this many pages.
    Requeue { pages: u8 },
    /// Writes a table or queue register while the ITS is enabled. This is UNPREDICTABLE, and both
    /// machines ignore it.
    Rewrite { register: Rewritten, value: u64 },
    /// Writes a `GITS_CWRITER` value beyond the queue, then a valid one.
    Overrun { beyond: u8, retry: bool },
}

/// The setup performed by [`Step::Start`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Start {
    /// `GICR_PROPBASER.IDbits`.
    pub(super) id_bits: u8,
    /// If bit n is set, CPU n has LPIs enabled.
    pub(super) enabled: u8,
    /// Whether the device table and the collection table have two levels.
    pub(super) two_level: [bool; 2],
}

/// An ITS register that is written while the ITS is enabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rewritten {
    /// `GITS_BASER0`.
    Devices,
    /// `GITS_BASER1`.
    Collections,
    /// `GITS_CBASER`.
    Queue,
}

/// The width of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
    /// 64 bits.
    Double,
}

impl Width {
    pub(super) const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }

    pub(super) const fn letter(self) -> char {
        match self {
            Self::Byte => 'b',
            Self::Half => 'w',
            Self::Word => 'l',
            Self::Double => 'q',
        }
    }
}
