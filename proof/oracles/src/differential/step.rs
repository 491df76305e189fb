//! The steps of a case.

use super::access::Width;
use super::command::Command;

/// A single action by software or a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Reads a register.
    Load { at: u64, width: Width },
    /// Writes a register.
    Store { at: u64, width: Width, value: u64 },
    /// Writes one half of `GICR_PROPBASER` or `GICR_PENDBASER` while LPIs are disabled.
    Tables { cpu: u16, offset: u64, value: u64 },
    /// Drives an input of the GIC, given by its number in the protocol.
    Line { input: u16, level: u8 },
    /// Writes an LPI's configuration byte, given by its offset in the table.
    Configure { offset: u16, byte: u8 },
    /// Sets a byte of a CPU's pending table while the CPU's LPIs are disabled, and then enables the
    /// LPIs.
    Preset { cpu: u16, offset: u16, byte: u8 },
    /// Assigns tables to the ITS and the redistributors, and enables the ITS and LPIs.
    Start(Start),
    /// Posts a command to the ITS.
    Command(Command),
    /// Posts a command whose reserved bits contain ones.
    Reserved { command: Command, ones: u32 },
    /// Posts this many commands with an invalid opcode, all together.
    Nothing { commands: u8 },
    /// Sends a message with DeviceID 0.
    Message { event: u32, width: Width },
    /// Disables a CPU's LPIs, which makes the redistributor write its pending table; compares the
    /// table; then enables the LPIs again.
    Pending { cpu: u16 },
    /// Enables everything that is necessary for interrupts to reach a CPU, and enables this many
    /// LPIs.
    Deliver { lpis: u16 },
    /// Lets a CPU acknowledge its pending interrupts.
    Acknowledge { cpu: u16 },
    /// Clears or sets `GITS_CTLR.Enabled`.
    Enable { its: bool },
    /// Assigns the command queue to the ITS again, with this many pages.
    Requeue { pages: u8 },
    /// Writes a table register or queue register while the ITS is enabled. The effect is
    /// UNPREDICTABLE; both machines ignore the write.
    Rewrite { register: Rewritten, value: u64 },
    /// Writes a value to `GITS_CWRITER` that is beyond the queue, then a valid value.
    Overrun { beyond: u8, retry: bool },
}

/// The setup that [`Step::Start`] performs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Start {
    /// `GICR_PROPBASER.IDbits`.
    pub(super) id_bits: u8,
    /// Bit n is set if LPIs are enabled at CPU n.
    pub(super) enabled: u8,
    /// `true` for each of the device table and the collection table that has two levels.
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
