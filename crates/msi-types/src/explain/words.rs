//! Parts of messages that depend on a number or an option.

use crate::Cpu;
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
