//! Steps of a case.

use super::command::Command;

/// One thing that software or a device does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Reads a register.
    Load { at: u64, width: Width },
    /// Writes a register.
    Store { at: u64, width: Width, value: u64 },
    /// Writes a half of `GICR_PROPBASER` or `GICR_PENDBASER`, with LPIs disabled.
    Tables { cpu: u16, offset: u64, value: u64 },
    /// Drives an input of the GIC, by its number there.
    Line { input: u16, level: u8 },
    /// Writes an LPI's configuration byte, by its offset in the table.
    Configure { offset: u16, byte: u8 },
    /// Sets a byte of a CPU's pending table while its LPIs are disabled, and enables them.
    Preset { cpu: u16, offset: u16, byte: u8 },
    /// Gives the ITS and the redistributors their tables, and enables them.
    Start(Start),
    /// Puts a command into the queue, and tells the ITS.
    Command(Command),
    /// The same with ones in reserved bits.
    Reserved { command: Command, ones: u32 },
    /// Puts so many commands of an opcode that does not exist into the queue at once.
    Nothing { commands: u8 },
    /// A message of DeviceID 0.
    Message { event: u32, width: Width },
    /// Disables a CPU's LPIs, which writes its pending table, compares that, and enables them
    /// again.
    Pending { cpu: u16 },
    /// Enables everything that a CPU needs to be interrupted, and so many LPIs.
    Deliver { lpis: u16 },
    /// A CPU acknowledges what is pending.
    Acknowledge { cpu: u16 },
    /// Clears or sets `GITS_CTLR.Enabled`.
    Enable { its: bool },
    /// Gives the ITS its queue anew, with so many pages.
    Requeue { pages: u8 },
    /// Writes a register of a table or of the queue while the ITS is enabled: UNPREDICTABLE, and
    /// both machines ignore it.
    Rewrite { register: Rewritten, value: u64 },
    /// Tells the ITS of commands beyond the queue, then the truth.
    Overrun { beyond: u8, retry: bool },
}

/// Setup that [`Step::Start`] makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Start {
    /// `GICR_PROPBASER.IDbits`.
    pub(super) id_bits: u8,
    /// Bit n: LPIs are enabled at CPU n.
    pub(super) enabled: u8,
    /// Tables of two levels, for devices and for collections.
    pub(super) two_level: [bool; 2],
}

/// A register of the ITS that is written while it is enabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rewritten {
    /// `GITS_BASER0`.
    Devices,
    /// `GITS_BASER1`.
    Collections,
    /// `GITS_CBASER`.
    Queue,
}

/// Width of an access.
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
