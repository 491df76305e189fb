//! Parts of messages that depend on a number or an option.

use crate::{Cpu, DeviceId, EventId, MsiMessage};
use core::fmt;

/// A part of a message, which a function writes.
struct Part<F>(F);

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Part<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0(f)
    }
}

/// Suffix with the address of an existing doorbell, if any.
pub(super) fn other(address: Option<u64>) -> impl fmt::Display {
    Part(move |f: &mut fmt::Formatter<'_>| match address {
        Some(address) => write!(f, "; a doorbell is at {address:#x}"),
        None => Ok(()),
    })
}

/// Clause with the number of other DeviceIDs that are mapped.
pub(super) fn other_devices(mapped: u32) -> impl fmt::Display {
    Part(move |f: &mut fmt::Formatter<'_>| match mapped {
        0 => f.write_str("no DeviceID is mapped"),
        1 => f.write_str("1 other DeviceID is mapped"),
        mapped => write!(f, "{mapped} other DeviceIDs are mapped"),
    })
}

/// Suffix that names the CPU at which an interrupt is active, if known.
pub(super) fn by(cpu: Option<Cpu>) -> impl fmt::Display {
    Part(move |f: &mut fmt::Formatter<'_>| match cpu {
        Some(cpu) => write!(f, " at CPU {cpu}"),
        None => Ok(()),
    })
}

/// Suffix with a command's operand, if known.
pub(super) fn with_operand(value: Option<u32>) -> impl fmt::Display {
    Part(move |f: &mut fmt::Formatter<'_>| match value {
        Some(value) => write!(f, " ({value:#x})"),
        None => Ok(()),
    })
}

/// The events that share an interrupt: one of them, if known, and their number.
pub(super) fn sharing(known: Option<(DeviceId, EventId)>, events: u32) -> impl fmt::Display {
    Part(move |f: &mut fmt::Formatter<'_>| match (known, events) {
        (Some((device, event)), 1) => write!(f, "DeviceID {device}, EventID {event}"),
        (Some((device, event)), events) => {
            write!(f, "{events} events, such as DeviceID {device}, EventID {event}")
        }
        (None, 1) => f.write_str("another event"),
        (None, events) => write!(f, "{events} other events"),
    })
}

/// Prefix that counts refused commands, of which the text names the first.
pub(super) fn several(count: u64) -> impl fmt::Display {
    Part(move |f: &mut fmt::Formatter<'_>| match count {
        1 => Ok(()),
        count => write!(f, "{count} commands; the first was "),
    })
}

/// Number of times that something has happened.
pub(super) fn times(number: u64) -> impl fmt::Display {
    Part(move |f: &mut fmt::Formatter<'_>| match number {
        1 => f.write_str("once"),
        number => write!(f, "{number} times"),
    })
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
