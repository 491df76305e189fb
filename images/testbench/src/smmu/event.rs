//! Events that the SMMU reports (IHI 0070, 7.3).

use super::stream_table::StreamId;

/// An event record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    pub(crate) stream: StreamId,
    /// Attempted access; only for faults of translation.
    pub(crate) access: Access,
    /// Address, as the device sees it.
    pub(crate) address: u64,
}

/// Reading or writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Of which kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EventKind {
    /// C_BAD_STREAMID: beyond the stream table.
    BadStreamId,
    /// C_BAD_STE: the stream's entry is not valid.
    BadStreamEntry,
    /// F_TRANSLATION: nothing is mapped there.
    Translation,
    /// Any other, by its number.
    Other(u8),
}

impl Event {
    /// Of a record's first three words.
    pub(super) fn read(words: [u64; 3]) -> Self {
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
