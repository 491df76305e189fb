//! The command queue (IHI 0069 §5.3.1): a ring in the guest's memory, worked off a budgeted piece
//! at a time.

use super::commands::{Executor, Refusal};
use super::config::ErrorPolicy;
use super::{Its, ItsRegisters};
use crate::events::{FaultReason, GuestFault};
use crate::heap::OutOfMemory;
use crate::lpi::{Control, ENTRIES_PER_PIECE};
use crate::memory::{GuestMemory, MemoryFault};
use crate::progress::Progress;
use crate::wakeup::Recalls;
use core::fmt;
use gic_arch::gits::{Cbaser, Creadr, Cwriter};
use gic_arch::its::{COMMAND_BYTES, Command, CommandError, Opcode, RawCommand, UnknownOpcode};

/// How many entries count as much as a command.
const ENTRIES_PER_UNIT: u64 = 16;

/// The registers of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Queue {
    pub(super) base: Cbaser,
    /// Byte offset of the next command to execute.
    read: u32,
    /// Byte offset at which software writes next.
    write: u32,
    stalled: bool,
    /// The next command was begun, and is consumed when its sweep is done.
    begun: bool,
    /// The next command is a SYNC, which waits for these.
    awaited: Option<Recalls>,
}

/// Why a command was not carried out.
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
    /// How many.
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

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CommandProgress {
    /// It is carried out.
    Done,
    /// It is carried out as soon as its sweep is.
    Begun,
    /// Something that was begun is not done yet.
    Sweeps,
    /// It is a SYNC, and an interrupt that was changed before it may still be in a list register.
    /// Or what was begun finds no memory on the heap.
    Waits,
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

    const fn has_work(&self) -> bool {
        self.base.valid() && !self.stalled && self.read != self.write
    }

    const fn advance(&mut self) {
        self.read = (self.read + COMMAND_BYTES) % self.base.bytes();
        self.awaited = None;
    }

    fn fetch(&self, memory: &dyn GuestMemory) -> Result<RawCommand, MemoryFault> {
        let mut bytes = [0; COMMAND_BYTES as usize];
        memory.read(self.base.address() + u64::from(self.read), &mut bytes)?;
        let (words, _) = bytes.as_chunks::<8>();
        Ok(core::array::from_fn(|at| u64::from_le_bytes(words[at])))
    }
}

impl Its {
    /// Goes on with what registers asked for, then executes commands until the queue is empty or
    /// stalled, or a budget's worth is done. What is left is noted.
    pub(super) fn run(&self, state: &mut ItsRegisters) {
        let progress = self.run_within_budget(state);
        self.lpis.note_work(&mut state.left, progress);
    }

    /// A queue that waits for vCPUs to exit goes on when they do. One that waits for memory goes on
    /// at the next access.
    fn run_within_budget(&self, state: &mut ItsRegisters) -> Progress {
        let budget = u64::from(self.config.work_per_access) * ENTRIES_PER_UNIT;
        let mut spent = 0;
        while spent < budget {
            let piece = ENTRIES_PER_PIECE.min(budget - spent);
            let (result, work) = self.lpis.with_kicks_deferred(|control| {
                let before = control.work();
                let result = self.advance(state, control, before + piece);
                (result, control.work() - before)
            });
            spent += work;
            match result {
                None | Some(Ok(CommandProgress::Waits)) => return Progress::Done,
                Some(Ok(CommandProgress::Sweeps)) => continue,
                Some(Ok(CommandProgress::Done)) => state.queue.advance(),
                Some(Ok(CommandProgress::Begun)) => state.queue.begun = true,
                Some(Err(fault)) => self.fail(state, fault),
            }
            spent += ENTRIES_PER_UNIT;
        }
        Progress::Unfinished
    }

    /// After a restore: commands that wait are left over.
    pub(crate) fn note_restored(&self) {
        let mut state = self.state.lock();
        let is_done = !(state.enabled && state.queue.has_work());
        self.lpis.note_work(&mut state.left, Progress::done(is_done));
    }

    /// Finishes what was begun, in one go.
    pub(super) fn finish_begun(&self, state: &mut ItsRegisters) {
        let is_done = self.lpis.with_kicks_deferred(|control| {
            // What finds no memory stays begun.
            let _ = control.finish_sweeps();
            control.is_quiescent(self.index)
        });
        if is_done && core::mem::take(&mut state.queue.begun) {
            state.queue.advance();
        }
    }

    /// Does the next thing that is to be done; `None` if there is none.
    fn advance(
        &self,
        state: &mut ItsRegisters,
        control: &mut Control,
        limit: u64,
    ) -> Option<Result<CommandProgress, CommandFault>> {
        match control.advance_its(self.index, limit) {
            Ok(true) => {}
            Ok(false) => return Some(Ok(CommandProgress::Sweeps)),
            Err(OutOfMemory) => return Some(Ok(CommandProgress::Waits)),
        }
        if core::mem::take(&mut state.queue.begun) {
            state.queue.advance();
        }
        (state.enabled && state.queue.has_work()).then(|| self.step(state, control))
    }

    fn step(
        &self,
        state: &mut ItsRegisters,
        control: &mut Control,
    ) -> Result<CommandProgress, CommandFault> {
        let raw = state.queue.fetch(control.memory()).map_err(CommandFault::Unreadable)?;
        let command = Command::decode(raw).map_err(CommandFault::Unknown)?;
        if matches!(command, Command::Sync { .. }) {
            let until = *state.queue.awaited.get_or_insert_with(|| control.recalls());
            if control.awaits(until) {
                return Ok(CommandProgress::Waits);
            }
        }
        let mut executor = Executor {
            its: self.index,
            config: &self.config,
            targets: &self.targets,
            tables: state.tables,
            control,
        };
        match executor.execute(command) {
            Ok(()) if control.is_quiescent(self.index) => Ok(CommandProgress::Done),
            Ok(()) => Ok(CommandProgress::Begun),
            Err(Refusal::Reason(reason)) => {
                Err(CommandFault::Refused(CommandError { opcode: command.opcode(), reason }))
            }
            Err(Refusal::NoRoom) => Err(CommandFault::NoRoom(command.opcode())),
            Err(Refusal::OutOfMemory) => Err(CommandFault::OutOfMemory(command.opcode())),
        }
    }

    fn fail(&self, state: &mut ItsRegisters, fault: CommandFault) {
        state.faults.count += 1;
        state.faults.last = Some(fault);
        let (reason, detail) = match fault {
            CommandFault::Refused(error) => (FaultReason::ItsCommand, error.code().into()),
            CommandFault::Unknown(UnknownOpcode(opcode)) => {
                (FaultReason::ItsCommand, opcode.into())
            }
            CommandFault::NoRoom(opcode) => (FaultReason::Budget, opcode.number().into()),
            CommandFault::OutOfMemory(opcode) => (FaultReason::OutOfMemory, opcode.number().into()),
            CommandFault::Unreadable(fault) => (FaultReason::ItsTable, fault.address),
        };
        self.events.record(GuestFault { reason, address: self.config.base, detail });
        match (fault, self.config.error_policy) {
            (CommandFault::Unreadable(_), _) | (_, ErrorPolicy::Stall) => {
                state.queue.stalled = true;
            }
            (_, ErrorPolicy::Skip) => state.queue.advance(),
        }
    }
}
