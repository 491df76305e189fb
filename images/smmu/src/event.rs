//! Events that the SMMU reports (IHI 0070, 7.3), and the numbers of streams and address spaces.

use core::fmt;

/// StreamID: the number that identifies a device to the SMMU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StreamId(pub u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Number of an address space in the SMMU's caches (ASID).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceId(pub u16);

/// An event record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Kind of the event.
    pub kind: EventKind,
    /// Stream whose access was aborted.
    pub stream: StreamId,
    /// Attempted access; only valid for translation faults.
    pub access: Access,
    /// Address as issued by the device.
    pub address: u64,
}

/// Direction of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// The device read.
    Read,
    /// The device wrote.
    Write,
}

/// Kind of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// C_BAD_STREAMID: the stream exceeds the stream table.
    BadStreamId,
    /// C_BAD_STE: the stream's table entry is invalid.
    BadStreamEntry,
    /// F_TRANSLATION: the address is not mapped.
    Translation,
    /// Any other event, by its number.
    Other(u8),
}

impl Event {
    /// Decodes the first three words of an event record.
    pub(crate) fn read(words: [u64; 3]) -> Self {
        let kind = match words[0] as u8 {
            0x02 => EventKind::BadStreamId,
            0x04 => EventKind::BadStreamEntry,
            0x10 => EventKind::Translation,
            other => EventKind::Other(other),
        };
        let access = if words[1] >> 35 & 1 == 1 { Access::Read } else { Access::Write };
        Self { kind, stream: StreamId((words[0] >> 32) as u32), access, address: words[2] }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, stream, address, .. } = self;
        let access = match self.access {
            Access::Read => "read",
            Access::Write => "write",
        };
        match kind {
            EventKind::BadStreamId => write!(f, "stream {stream} is beyond the stream table"),
            EventKind::BadStreamEntry => write!(f, "stream {stream} has no translation"),
            EventKind::Translation => {
                write!(f, "stream {stream} may not {access} {address:#x}: nothing is mapped there")
            }
            EventKind::Other(number) => write!(
                f,
                "stream {stream} may not {access} {address:#x}: event {number:#x} (IHI 0070, 7.3)",
            ),
        }
    }
}
