//! The two in-memory queues (IHI 0070, 3.5): commands to the SMMU, and events from it. An index
//! counts up to twice the queue length, because the extra bit tells a full queue from an empty one.

use crate::event::{Event, SpaceId, StreamId};
use crate::platform::{Ring, SmmuError, load, store, wait_for};
use crate::registers::Registers;

const COMMAND_BYTES: u64 = 16;
const EVENT_BYTES: u64 = 32;

const CFGI_STE: u64 = 0x03;
const CFGI_STE_RANGE: u64 = 0x04;
const TLBI_NH_VA: u64 = 0x12;
const TLBI_NSNH_ALL: u64 = 0x30;
const SYNC: u64 = 0x46;
/// Range of CMD_CFGI_STE_RANGE that covers all 2^32 streams.
const EVERY_STREAM: u64 = 31;
const LEAF: u64 = 1;

/// Commands that invalidate the SMMU's caches. A later CMD_SYNC waits for their completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Forget {
    /// CMD_CFGI_STE: a stream's table entry and context.
    Stream(StreamId),
    /// CMD_CFGI_ALL: the table entries and contexts of all streams.
    Configuration,
    /// CMD_TLBI_NH_VA: one page of an address space.
    Page { space: SpaceId, page: u64 },
    /// CMD_TLBI_NSNH_ALL: all pages of all address spaces.
    Translations,
}

impl Forget {
    fn words(self) -> [u64; 2] {
        match self {
            Self::Stream(StreamId(stream)) => [CFGI_STE | u64::from(stream) << 32, LEAF],
            Self::Configuration => [CFGI_STE_RANGE, EVERY_STREAM],
            Self::Page { space: SpaceId(space), page } => {
                [TLBI_NH_VA | u64::from(space) << 48, page | LEAF]
            }
            Self::Translations => [TLBI_NSNH_ALL, 0],
        }
    }
}

/// The command queue.
pub(crate) struct Commands(pub(crate) Ring);

impl Commands {
    /// Allocates the queue, whose index has at most this number of bits.
    pub(crate) fn new(most_bits: u32) -> Result<Self, SmmuError> {
        Ring::new(COMMAND_BYTES, most_bits, "commands").map(Self)
    }

    /// Posts a command. The SMMU may execute it at any time from now on.
    pub(crate) fn post(&mut self, registers: &Registers, command: Forget) -> Result<(), SmmuError> {
        self.push(registers, command.words())
    }

    /// Posts CMD_SYNC, and waits until all earlier commands have completed.
    pub(crate) fn sync(&mut self, registers: &Registers) -> Result<(), SmmuError> {
        self.push(registers, [SYNC, 0])?;
        let end = self.0.index;
        let mut error = 0;
        wait_for("CMD_SYNC", || {
            let (read, found) = registers.commands_read();
            error = found;
            read == end || found != 0
        })?;
        if error == 0 { Ok(()) } else { Err(SmmuError::BadCommand(error)) }
    }

    fn push(&mut self, registers: &Registers, words: [u64; 2]) -> Result<(), SmmuError> {
        let Self(ring) = self;
        let full = ring.index ^ 1 << ring.bits;
        wait_for("the command queue", || registers.commands_read().0 != full)?;
        store(&ring.table, ring.slot() * COMMAND_BYTES, &words);
        ring.advance();
        registers.set_commands_end(ring.index);
        Ok(())
    }
}

/// The event queue.
pub(crate) struct EventQueue(pub(crate) Ring);

impl EventQueue {
    /// Allocates the queue, whose index has at most this number of bits.
    pub(crate) fn new(most_bits: u32) -> Result<Self, SmmuError> {
        Ring::new(EVENT_BYTES, most_bits, "events").map(Self)
    }

    /// Returns the oldest event that has not been read yet.
    pub(crate) fn next(&mut self, registers: &Registers) -> Option<Event> {
        let Self(ring) = self;
        if registers.events_end() == ring.index {
            return None;
        }
        let start = ring.slot() * EVENT_BYTES;
        let words = [0, 8, 16].map(|word| load(&ring.table, start + word));
        ring.advance();
        registers.set_events_read(ring.index);
        Some(Event::read(words))
    }
}
