//! What the machines are asked: accesses by a device or software, in the form that both machines
//! carry out. QEMU receives them as lines of its qtest protocol.

use super::address_map::{CREADR, ITS};
use std::fmt;
pub(super) use vgic::AccessWidth as Width;

/// Path of the GIC in QEMU's machine with three CPUs. The CPUs are the devices before it.
pub(super) const GIC: &str = "/machine/unattached/device[3]";

/// A request to both machines.
#[expect(missing_docs, reason = "the fields are the operands of the access")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reads a register.
    Load { at: u64, width: Width },
    /// Writes a register or memory.
    Store { at: u64, width: Width, value: u64 },
    /// Reads memory.
    Dump { at: u64, bytes: u64 },
    /// Fills memory.
    Fill { at: u64, bytes: u64, byte: u8 },
    /// Drives an input of the GIC: one per SPI, followed by 32 per CPU.
    Line { input: u16, level: u8 },
    /// The CPUs of this range acknowledge and end interrupts until none is pending.
    Acknowledge { first: u16, end: u16 },
}

impl Access {
    /// Returns `true` if the access may change the machine's state. Even reading `GITS_CREADR` may
    /// make the ITS execute commands.
    pub(super) const fn acts(self) -> bool {
        match self {
            Self::Load { at, .. } => at & !7 == ITS + CREADR,
            _ => true,
        }
    }

    pub(super) const fn is_acknowledgment(self) -> bool {
        matches!(self, Self::Acknowledge { .. })
    }
}

/// Formats the access as a line of QEMU's protocol, in which CPUs that acknowledge are a comment.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Load { at, width } => write!(f, "read{} {at:#x}", letter(width)),
            Self::Store { at, width, value } => {
                write!(f, "write{} {at:#x} {value:#x}", letter(width))
            }
            Self::Dump { at, bytes } => write!(f, "read {at:#x} {bytes:#x}"),
            Self::Fill { at, bytes, byte } => write!(f, "memset {at:#x} {bytes:#x} {byte:#x}"),
            Self::Line { input, level } => {
                write!(f, "set_irq_in {GIC} unnamed-gpio-in {input} {level}")
            }
            Self::Acknowledge { first, end } => write!(
                f,
                "# each CPU of {first}..{end} acknowledges and ends what is pending, until nothing is"
            ),
        }
    }
}

/// Returns the letter of a width in the names of the protocol's accesses.
const fn letter(width: Width) -> char {
    match width {
        Width::Byte => 'b',
        Width::Half => 'w',
        Width::Word => 'l',
        Width::Double => 'q',
    }
}
