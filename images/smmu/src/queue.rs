//! The two in-memory queues (IHI 0070, 3.5): commands to the SMMU, and events from it. An index
//! counts up to twice the queue length, because the extra bit tells a full queue from an empty one.

use crate::error::SmmuError;
use crate::event::Event;
use crate::registers::{Registers, Ring};
use crate::stream_id::{SpaceId, StreamId};
use crate::table::{load, memory, store};
use crate::wait::wait_for;
use gic_driver::Table;

/// Length of both queues as a power of two, unless the SMMU supports only shorter queues.
const USUAL_BITS: u32 = 7;
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
pub(crate) struct Commands {
    table: Table,
    bits: u32,
    end: u32,
}

impl Commands {
    pub(crate) fn new(most_bits: u32) -> Result<Self, SmmuError> {
        let bits = most_bits.min(USUAL_BITS);
        Ok(Self { table: memory(COMMAND_BYTES << bits, 32, "commands")?, bits, end: 0 })
    }

    /// Posts a command. The SMMU may execute it at any time from now on.
    pub(crate) fn post(&mut self, registers: &Registers, command: Forget) -> Result<(), SmmuError> {
        self.push(registers, command.words())
    }

    /// Posts CMD_SYNC, and waits until all earlier commands have completed.
    pub(crate) fn sync(&mut self, registers: &Registers) -> Result<(), SmmuError> {
        self.push(registers, [SYNC, 0])?;
        let end = self.end;
        let mut error = 0;
        wait_for("CMD_SYNC", || {
            let (read, found) = registers.commands_read();
            error = found;
            read == end || found != 0
        })?;
        if error == 0 { Ok(()) } else { Err(SmmuError::BadCommand(error)) }
    }

    pub(crate) fn ring(&self) -> Ring {
        Ring { address: self.table.address, bits: self.bits }
    }

    fn push(&mut self, registers: &Registers, words: [u64; 2]) -> Result<(), SmmuError> {
        let full = self.end ^ 1 << self.bits;
        wait_for("the command queue", || registers.commands_read().0 != full)?;
        let slot = u64::from(self.end & ((1 << self.bits) - 1));
        store(&self.table, slot * COMMAND_BYTES, &words);
        self.end = (self.end + 1) & ((2 << self.bits) - 1);
        registers.set_commands_end(self.end);
        Ok(())
    }
}

/// The event queue.
pub(crate) struct EventQueue {
    table: Table,
    bits: u32,
    read: u32,
}

impl EventQueue {
    pub(crate) fn new(most_bits: u32) -> Result<Self, SmmuError> {
        let bits = most_bits.min(USUAL_BITS);
        Ok(Self { table: memory(EVENT_BYTES << bits, 32, "events")?, bits, read: 0 })
    }

    /// Returns the oldest event that has not been read yet.
    pub(crate) fn next(&mut self, registers: &Registers) -> Option<Event> {
        if registers.events_end() == self.read {
            return None;
        }
        let slot = u64::from(self.read & ((1 << self.bits) - 1)) * EVENT_BYTES;
        let words = [0, 8, 16].map(|word| load(&self.table, slot + word));
        self.read = (self.read + 1) & ((2 << self.bits) - 1);
        registers.set_events_read(self.read);
        Some(Event::read(words))
    }

    pub(crate) fn ring(&self) -> Ring {
        Ring { address: self.table.address, bits: self.bits }
    }
}
