//! The steps of a case.

use super::command::Command;

/// One action of software or of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Reads a register.
    Load { at: u64, width: Width },
    /// Writes a register.
    Store { at: u64, width: Width, value: u64 },
    /// Writes a half of `GICR_PROPBASER` or `GICR_PENDBASER`, with LPIs disabled.
    Tables { cpu: u16, offset: u64, value: u64 },
    /// Drives an input of the GIC, identified by its number in the protocol.
    Line { input: u16, level: u8 },
    /// Writes the configuration byte of an LPI, identified by its offset in the table.
    Configure { offset: u16, byte: u8 },
    /// Sets a byte of a CPU's pending table while its LPIs are disabled, and then enables them.
    Preset { cpu: u16, offset: u16, byte: u8 },
    /// Assigns tables to the ITS and the redistributors, and enables them.
    Start(Start),
    /// Posts a command to the ITS.
    Command(Command),
    /// Posts a command with ones in reserved bits.
    Reserved { command: Command, ones: u32 },
    /// Posts this many commands with an invalid opcode together.
    Nothing { commands: u8 },
    /// Sends a message with DeviceID 0.
    Message { event: u32, width: Width },
    /// Disables a CPU's LPIs, which writes its pending table, compares the table, and enables them
    /// again.
    Pending { cpu: u16 },
    /// Enables everything that a CPU needs to be interrupted, and this many LPIs.
    Deliver { lpis: u16 },
    /// Lets a CPU acknowledge its pending interrupts.
    Acknowledge { cpu: u16 },
    /// Clears or sets `GITS_CTLR.Enabled`.
    Enable { its: bool },
    /// Assigns the queue to the ITS again, with this many pages.
    Requeue { pages: u8 },
    /// Writes a register of a table or of the queue while the ITS is enabled, which is
    /// UNPREDICTABLE and which both machines ignore.
    Rewrite { register: Rewritten, value: u64 },
    /// Writes a `GITS_CWRITER` beyond the queue, followed by a valid one.
    Overrun { beyond: u8, retry: bool },
}

/// The setup that [`Step::Start`] performs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Start {
    /// `GICR_PROPBASER.IDbits`.
    pub(super) id_bits: u8,
    /// If bit n is set, LPIs are enabled at CPU n.
    pub(super) enabled: u8,
    /// Whether tables have two levels, for devices and for collections.
    pub(super) two_level: [bool; 2],
}

/// A register of the ITS that is written while the ITS is enabled.
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
