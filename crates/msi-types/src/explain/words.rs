//! Parts of messages that depend on a number or an option.

use crate::{Cpu, DeviceId, EventId, MsiMessage};
use core::fmt;

/// Suffix with the address of an existing doorbell, if any.
pub(super) struct Other(pub(super) Option<u64>);

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, "; a doorbell is at {address:#x}"),
            None => Ok(()),
        }
    }
}

/// Clause with the number of other DeviceIDs that are mapped.
pub(super) struct OtherDevices(pub(super) u32);

impl fmt::Display for OtherDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("no DeviceID is mapped"),
            1 => f.write_str("1 other DeviceID is mapped"),
            mapped => write!(f, "{mapped} other DeviceIDs are mapped"),
        }
    }
}

/// Suffix that names the CPU at which an interrupt is active, if known.
pub(super) struct By(pub(super) Option<Cpu>);

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(cpu) => write!(f, " at CPU {cpu}"),
            None => Ok(()),
        }
    }
}

/// Suffix with a command's operand, if known.
pub(super) struct Operand(pub(super) Option<u32>);

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(operand) => write!(f, " ({operand:#x})"),
            None => Ok(()),
        }
    }
}

/// The events that share an interrupt: one of them, if known, and their number.
pub(super) struct Sharing(pub(super) Option<(DeviceId, EventId)>, pub(super) u32);

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self(Some((device, event)), 1) => write!(f, "DeviceID {device}, EventID {event}"),
            Self(Some((device, event)), events) => {
                write!(f, "{events} events, such as DeviceID {device}, EventID {event}")
            }
            Self(None, 1) => f.write_str("another event"),
            Self(None, events) => write!(f, "{events} other events"),
        }
    }
}

/// Prefix that counts refused commands, of which the text names the first.
pub(super) struct Several(pub(super) u64);

impl fmt::Display for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => Ok(()),
            count => write!(f, "{count} commands; the first was "),
        }
    }
}

/// Number of times that something has happened.
pub(super) struct Times(pub(super) u64);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("once"),
            times => write!(f, "{times} times"),
        }
    }
}

/// Fate of a message that a driver stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lost {
    /// All bits are 0, as after a reset.
    Everything,
    /// High bits of the address or the data are 0.
    HighBits,
    /// Other bits differ.
    Other,
}

impl Lost {
    pub(super) const fn of(stored: MsiMessage, expected: MsiMessage) -> Self {
        if stored.address == 0 && stored.data == 0 {
            return Self::Everything;
        }
        let (stored_data, data) = (stored.data as u64, expected.data as u64);
        if is_truncated(stored.address, expected.address) && is_truncated(stored_data, data) {
            Self::HighBits
        } else {
            Self::Other
        }
    }

    /// Returns advice for the driver.
    pub(super) const fn fix(self) -> &'static str {
        match self {
            Self::Everything => {
                "restore the messages, which a reset clears and a function outside D0 does not \
                 store"
            }
            Self::HighBits => {
                "store all bits of the message, or state in the store's `Fit` which it holds"
            }
            Self::Other => {
                "find out what overwrote the message; if the function was reset, restore it"
            }
        }
    }
}

/// Returns `true` if `stored` has the low bits of `expected`, and zeros above them.
const fn is_truncated(stored: u64, expected: u64) -> bool {
    let lost = stored ^ expected;
    let kept = u64::BITS - stored.leading_zeros();
    lost == 0 || (lost & stored == 0 && kept != 0 && lost.trailing_zeros() >= kept)
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Everything => ": the vector is in its reset state",
            Self::HighBits => ": the high bits are missing",
            Self::Other => "",
        })
    }
}
