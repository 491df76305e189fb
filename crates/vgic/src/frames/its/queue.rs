//! Command queue registers (IHI 0069 §5.3.1). The queue is a ring in guest memory, and the offsets
//! stay within it whatever the guest writes.

use crate::monitor::events::CommandFault;
use crate::monitor::{GuestMemory, MemoryFault};
use crate::wakeup::Recalls;
use gic_arch::gits::{Cbaser, Creadr, Cwriter};
use gic_arch::its::{COMMAND_BYTES, Command, UnknownOpcode};

/// Bits of `GITS_CBASER` that must be zero, because queues are aligned to 64 KiB. Other values are
/// CONSTRAINED UNPREDICTABLE (IHI 0069 §12.19); the model treats them as zero, as KVM does.
const UNALIGNED: u64 = 0xf000;

/// Queue registers and state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Queue {
    pub(super) base: Cbaser,
    /// `GITS_CBASER` as the guest wrote it.
    written: Cbaser,
    /// Byte offset of the next command to execute.
    read: u32,
    /// Byte offset of the guest's next command.
    write: u32,
    pub(super) stalled: bool,
    /// `true` if execution of the next command has begun. The command is consumed when its sweep is
    /// complete.
    pub(super) begun: bool,
    /// Recalls that the next command is waiting for if it is a SYNC.
    pub(super) awaited: Option<Recalls>,
    /// The next command if it was executed, or why it failed, until hardware that injects messages
    /// directly has followed it.
    pub(super) unfollowed: Option<Result<Command, CommandFault>>,
}

impl Queue {
    /// Creates an empty queue for a newly written `GITS_CBASER`.
    pub(super) const fn at(base: Cbaser) -> Self {
        let written = base;
        let base = written.with_address(written.address() & !UNALIGNED);
        let (read, write, stalled, begun, awaited) = (0, 0, false, false, None);
        Self { base, written, read, write, stalled, begun, awaited, unfollowed: None }
    }

    /// Creates a queue from register values. Offsets beyond the queue become 0.
    pub(super) const fn between(base: Cbaser, read: Creadr, write: Cwriter) -> Self {
        let bytes = base.bytes();
        Self {
            base,
            written: base,
            read: if read.offset() < bytes { read.offset() } else { 0 },
            write: if write.offset() < bytes { write.offset() } else { 0 },
            stalled: read.stalled(),
            begun: false,
            awaited: None,
            unfollowed: None,
        }
    }

    /// Returns the value that the guest wrote to `GITS_CBASER`. The queue may be unaligned.
    pub(super) const fn written(&self) -> Cbaser {
        self.written
    }

    /// Returns the value that the guest wrote to `GITS_CBASER` if the queue is unaligned.
    pub(super) fn unaligned(&self) -> Option<Cbaser> {
        let is_unaligned = self.written.valid() && self.written.address() & UNALIGNED != 0;
        is_unaligned.then_some(self.written)
    }

    /// Returns the guest physical address of the next command.
    pub(super) fn command_address(&self) -> u64 {
        self.base.address() + u64::from(self.read)
    }

    /// Returns `GITS_CREADR`.
    pub(super) const fn creadr(&self) -> Creadr {
        Creadr::at_offset(self.read).with_stalled(self.stalled)
    }

    /// Returns `GITS_CWRITER`.
    pub(super) const fn cwriter(&self) -> Cwriter {
        Cwriter::at_offset(self.write)
    }

    /// Handles a write to `GITS_CWRITER`. An offset beyond the queue is ignored.
    pub(super) const fn set_cwriter(&mut self, written: Cwriter) {
        if written.offset() < self.base.bytes() {
            self.write = written.offset();
            if written.retry() {
                self.stalled = false;
            }
        }
    }

    /// Returns `true` if the next command has begun.
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

    pub(super) fn fetch(
        &self,
        memory: &dyn GuestMemory,
    ) -> Result<Result<Command, UnknownOpcode>, MemoryFault> {
        Ok(Command::decode(memory.read_command(self.command_address())?))
    }
}
