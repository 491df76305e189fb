//! The registers of the command queue (IHI 0069 §5.3.1), a ring in the guest's memory. Offsets stay
//! within the queue, whatever the guest writes.

use crate::memory::{GuestMemory, MemoryFault};
use crate::wakeup::Recalls;
use core::fmt;
use gic_arch::gits::{Cbaser, Creadr, Cwriter};
use gic_arch::its::{COMMAND_BYTES, CommandError, Opcode, RawCommand, UnknownOpcode};

/// The registers of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Queue {
    pub(super) base: Cbaser,
    /// Byte offset of the next command to execute.
    read: u32,
    /// Byte offset at which software writes next.
    write: u32,
    pub(super) stalled: bool,
    /// The next command was begun, and is consumed when its sweep is done.
    pub(super) begun: bool,
    /// The next command is a SYNC, which waits for these.
    pub(super) awaited: Option<Recalls>,
}

/// The reason for which a command was not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandFault {
    /// The guest's command is wrong.
    #[error("the guest's ITS command failed: {0}")]
    Refused(CommandError),
    /// The guest's command is none.
    #[error("the guest's ITS command queue holds nonsense: {0}")]
    Unknown(UnknownOpcode),
    /// The model's budget of entries, devices or table nodes is used up.
    #[error("{}: the model's budget for mappings is used up", .0.name())]
    NoRoom(Opcode),
    /// The heap has no memory left for what the command maps. It may succeed later.
    #[error("{}: the heap has no memory left", .0.name())]
    OutOfMemory(Opcode),
    /// The queue lies where the guest has no memory. The queue stalls whatever the policy.
    #[error("the guest's ITS command queue cannot be read: {0}")]
    Unreadable(MemoryFault),
}

/// The command faults of an ITS so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CommandFaults {
    /// Number of faults.
    pub count: u64,
    /// The last one.
    pub last: Option<CommandFault>,
}

impl fmt::Display for CommandFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            Some(last) => write!(f, "{} command faults, last: {last}", self.count),
            None => f.write_str("no command faults"),
        }
    }
}

impl Queue {
    /// `GITS_CBASER` was written: the queue is empty.
    pub(super) const fn at(base: Cbaser) -> Self {
        // Bits 15:12 of the address are RES0.
        let base = base.with_address(base.address() & !0xffff);
        Self { base, read: 0, write: 0, stalled: false, begun: false, awaited: None }
    }

    /// A queue with these registers, as far as their offsets lie in it.
    pub(super) const fn between(base: Cbaser, read: Creadr, write: Cwriter) -> Self {
        let bytes = base.bytes();
        Self {
            base,
            read: if read.offset() < bytes { read.offset() } else { 0 },
            write: if write.offset() < bytes { write.offset() } else { 0 },
            stalled: read.stalled(),
            begun: false,
            awaited: None,
        }
    }

    /// `GITS_CREADR`.
    pub(super) const fn creadr(&self) -> Creadr {
        Creadr::at_offset(self.read).with_stalled(self.stalled)
    }

    /// `GITS_CWRITER`.
    pub(super) const fn cwriter(&self) -> Cwriter {
        Cwriter::at_offset(self.write)
    }

    /// `GITS_CWRITER` was written. An offset beyond the queue is dropped.
    pub(super) const fn set_cwriter(&mut self, written: Cwriter) {
        if written.offset() < self.base.bytes() {
            self.write = written.offset();
            if written.retry() {
                self.stalled = false;
            }
        }
    }

    /// Was the next command begun?
    pub(super) const fn has_begun(&self) -> bool {
        self.begun
    }

    pub(super) const fn has_work(&self) -> bool {
        self.base.valid() && !self.stalled && self.read != self.write
    }

    pub(super) const fn advance(&mut self) {
        self.read = (self.read + COMMAND_BYTES) % self.base.bytes();
        self.awaited = None;
    }

    pub(super) fn fetch(&self, memory: &dyn GuestMemory) -> Result<RawCommand, MemoryFault> {
        let address = self.base.address() + u64::from(self.read);
        let mut command = RawCommand::default();
        for (address, word) in (address..).step_by(8).zip(&mut command) {
            *word = memory.read_u64(address)?;
        }
        Ok(command)
    }
}
