//! The kinds of faults that can be planted in the model.

use super::address_map::{QUEUE, QUEUE_PAGES};
use super::peer::Asserted;
use vgic::VgicConfig;

/// A fault in the model.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The model has a different configuration.
    Built(fn(&mut VgicConfig)),
    /// The model executes commands that have one opcode as if they had another.
    Opcode { is: u8, taken_for: u8 },
    /// The model executes a protocol line that differs from the one sent.
    Line(fn(&str) -> Option<String>),
    /// The model reports wrong interrupt inputs as asserted.
    Inputs(fn(u32) -> u32),
}

impl Fault {
    /// Returns the line that the model executes instead of `line`, if any.
    pub(super) fn understood(self, line: &str) -> Option<String> {
        match self {
            Self::Built(_) | Self::Inputs(_) => None,
            Self::Opcode { is, taken_for } => with_opcode(line, is, taken_for),
            Self::Line(change) => change(line),
        }
    }

    /// Returns the inputs that the model reports as asserted.
    pub(super) fn shown(self, asserted: Asserted) -> Asserted {
        match self {
            Self::Inputs(change) => Asserted(change(asserted.0)),
            _ => asserted,
        }
    }
}

/// Returns the line with another opcode if the line stores the first word of a command whose opcode
/// is `is`.
pub(super) fn with_opcode(line: &str, is: u8, taken_for: u8) -> Option<String> {
    let (at, word) = first_word(line)?;
    let word = (word & 0xff == u64::from(is)).then_some(word & !0xff | u64::from(taken_for))?;
    Some(format!("writeq {at:#x} {word:#x}"))
}

/// Returns the address and value that this line stores if it stores the first word of a command.
pub(super) fn first_word(line: &str) -> Option<(u64, u64)> {
    let hexadecimal = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let (at, word) = line.strip_prefix("writeq ")?.split_once(' ')?;
    let (at, word) = (hexadecimal(at)?, hexadecimal(word)?);
    let in_queue = (QUEUE..QUEUE + 0x1000 * QUEUE_PAGES).contains(&at) && at.is_multiple_of(0x20);
    in_queue.then_some((at, word))
}
