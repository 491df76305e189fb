//! Executes the command queue in bounded pieces. A command is consumed when it is complete: while
//! it is in progress, `GITS_CREADR` doesn't move past it. Hardware that injects messages directly
//! follows the commands.

use super::commands::{Executor, Refusal};
use super::tables::check_translation_table;
use super::{Its, ItsRegisters};
use crate::config::ErrorPolicy;
use crate::lpi::{Control, ENTRIES_PER_PIECE, ENTRIES_PER_UNIT, LpiCore, Pause, direct_target};
use crate::monitor::events::{CommandFault, FailedCommand, FaultDetail, FaultReason};
use crate::monitor::{DirectInjection, DirectTarget, GuestMemory, InListRegister, Progress};
use alloc::sync::Arc;
use gic_arch::Lpi;
use gic_arch::gits;
use gic_arch::its::{Command, CommandError, MapAction, UnknownOpcode};
use msi_types::{DeviceId, EventId};

/// Progress of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CommandProgress {
    /// The command is complete.
    Done,
    /// The command is complete once its sweep over the mappings has finished.
    Begun,
    /// A sweep is still in progress.
    Sweeps,
    /// Execution is stalled because a command is waiting for an interrupt that may still be in a
    /// list register, or because heap memory is exhausted.
    Waits,
}

/// The next command, or its opcode if that is unknown.
type FetchedCommand = Result<Command, UnknownOpcode>;

/// Outcome of executing commands beside other ITSes.
enum Next {
    /// The budget is used up.
    Budget,
    /// No work is left.
    End,
    /// Work that must be done alone, and the next command if it has been fetched.
    Alone(Option<FetchedCommand>),
}

impl Its {
    /// Continues the work that register writes requested, then executes commands until the queue is
    /// empty, it stalls, or the budget is used up. Also records whether work remains.
    pub(super) fn run(&self, state: &mut ItsRegisters) {
        state.is_done = false;
        let progress = self.run_within_budget(state);
        self.lpis.note_work(&mut state.left, progress);
    }

    /// Does work within the budget of one access. A queue that is waiting for vCPUs to exit resumes
    /// when they have exited; a queue that is waiting for memory resumes at the next access.
    fn run_within_budget(&self, state: &mut ItsRegisters) -> Progress {
        let budget = u64::from(self.config.work_per_access) * ENTRIES_PER_UNIT;
        let mut spent = 0;
        while spent < budget {
            let limit = ENTRIES_PER_PIECE.min(budget - spent);
            let (work, next) = self.run_beside(state, limit);
            spent += work;
            let next = match next {
                Next::Budget => continue,
                Next::End => {
                    state.is_done = true;
                    return Progress::Done;
                }
                Next::Alone(fetched) => fetched,
            };
            let limit = ENTRIES_PER_PIECE.min(budget - spent);
            let (work, next) = self
                .lpis
                .with_kicks_deferred(|control| self.run_alone(state, control, limit, next));
            spent += work;
            match next {
                None => {}
                Some(Ok(())) => return Progress::Done,
                Some(Err(fault)) => self.fail(state, fault),
            }
        }
        Progress::Unfinished
    }

    /// Executes commands beside other ITSes, up to the first that can't be.
    fn run_beside(&self, state: &mut ItsRegisters, limit: u64) -> (u64, Next) {
        let (mut spent, mut control) = (0, None);
        if state.queue.begun || self.direct.get().is_some() {
            return (spent, Next::Alone(None));
        }
        while state.enabled && state.queue.has_work() {
            if spent >= limit {
                return (spent, Next::Budget);
            }
            let Ok(fetched) = state.queue.fetch(self.lpis.memory()) else {
                return (spent, Next::Alone(None));
            };
            let Some(command) = fetched.ok().filter(LpiCore::may_execute_beside) else {
                return (spent, Next::Alone(Some(fetched)));
            };
            let control: &Control = control.get_or_insert_with(|| self.read_lpis());
            let is_done = control.is_quiescent(self.index)
                && match command {
                    Command::Sync { target } => {
                        self.targets.find(target).is_some() && !control.awaits(control.recalls())
                    }
                    command => self.lpis.execute_beside(control, self.index, command),
                };
            if !is_done {
                return (spent, Next::Alone(Some(fetched)));
            }
            state.complete_command();
            spent += ENTRIES_PER_UNIT;
        }
        let is_quiescent = control.is_some() || self.read_lpis().is_quiescent(self.index);
        (spent, if is_quiescent { Next::End } else { Next::Alone(None) })
    }

    /// Executes commands while no other ITS does. `fetched` is the first, if it has been fetched.
    /// Returns the work done, and the reason if execution stopped before the limit: nothing is left
    /// to do now, or a command failed.
    fn run_alone(
        &self,
        state: &mut ItsRegisters,
        control: &mut Control,
        limit: u64,
        mut fetched: Option<FetchedCommand>,
    ) -> (u64, Option<Result<(), CommandFault>>) {
        let (before, mut commands) = (control.work(), 0);
        loop {
            let spent = control.work() - before + commands;
            if spent >= limit {
                return (spent, None);
            }
            let limit = control.work() + limit - spent;
            match self.advance(state, control, limit, &mut fetched) {
                None => {
                    state.is_done = true;
                    return (spent, Some(Ok(())));
                }
                Some(Ok(CommandProgress::Waits)) => return (spent, Some(Ok(()))),
                Some(Ok(CommandProgress::Sweeps)) => continue,
                Some(Ok(CommandProgress::Done)) => {
                    state.complete_command();
                    // No work remains, so another pass is unnecessary.
                    if !state.queue.has_work() {
                        state.is_done = true;
                        return (spent, Some(Ok(())));
                    }
                }
                Some(Ok(CommandProgress::Begun)) => state.queue.begun = true,
                Some(Err(fault)) => return (spent + ENTRIES_PER_UNIT, Some(Err(fault))),
            }
            commands += ENTRIES_PER_UNIT;
        }
    }

    /// Records commands that are waiting after a restore as remaining work.
    pub(crate) fn note_restored(&self) {
        let mut state = self.state.lock();
        let is_done = !(state.enabled && state.queue.has_work());
        self.lpis.note_work(&mut state.left, Progress::done(is_done));
    }

    /// Finishes all work in progress without a time limit.
    pub(super) fn finish_begun(&self, state: &mut ItsRegisters) {
        let failed = state.queue.unfollowed.and_then(Result::err);
        let is_done = self.lpis.with_kicks_deferred(|control| {
            // A paused sweep stays unfinished.
            let _ = control.finish_sweeps();
            control.is_quiescent(self.index) && self.is_followed(state, control)
        });
        if is_done && core::mem::take(&mut state.queue.begun) {
            match failed {
                Some(fault) => self.fail(state, fault),
                None => state.complete_command(),
            }
        }
    }

    /// Performs the next step, or returns `None` if there is nothing left to do.
    fn advance(
        &self,
        state: &mut ItsRegisters,
        control: &mut Control,
        limit: u64,
        fetched: &mut Option<FetchedCommand>,
    ) -> Option<Result<CommandProgress, CommandFault>> {
        match control.advance_its(self.index, limit) {
            Ok(true) => {}
            Ok(false) => return Some(Ok(CommandProgress::Sweeps)),
            Err(Pause::OutOfMemory | Pause::Listed) => return Some(Ok(CommandProgress::Waits)),
        }
        if state.queue.begun {
            let failed = state.queue.unfollowed.and_then(Result::err);
            if !self.is_followed(state, control) {
                return Some(Ok(CommandProgress::Waits));
            }
            state.queue.begun = false;
            if let Some(fault) = failed {
                return Some(Err(fault));
            }
            state.complete_command();
        }
        (state.enabled && state.queue.has_work()).then(|| self.step(state, control, fetched.take()))
    }

    fn step(
        &self,
        state: &mut ItsRegisters,
        control: &mut Control,
        fetched: Option<FetchedCommand>,
    ) -> Result<CommandProgress, CommandFault> {
        let fetched = fetched.map_or_else(|| state.queue.fetch(control.memory()), Ok);
        let command =
            fetched.map_err(|_| CommandFault::Unreadable)?.map_err(CommandFault::Unknown)?;
        if matches!(command, Command::Sync { .. }) {
            // Read the latest recall's number here, because all earlier commands' sweeps are done:
            // a sweep in progress may still request recalls.
            let until = *state.queue.awaited.get_or_insert_with(|| control.recalls());
            if control.awaits(until) {
                return Ok(CommandProgress::Waits);
            }
        }
        match self.direct.get() {
            Some(direct) if !matches!(command, Command::Sync { .. }) => {
                self.execute_with(&**direct, command, (state, control))
            }
            _ => self.execute(command, state, control),
        }
    }

    #[inline]
    fn execute(
        &self,
        command: Command,
        state: &ItsRegisters,
        control: &mut Control,
    ) -> Result<CommandProgress, CommandFault> {
        let mut executor = Executor {
            its: self.index,
            config: &self.config,
            targets: &self.targets,
            tables: state.tables,
            control,
        };
        let outcome = executor.execute(command);
        if let (Ok(()), Command::Mapd { itt, event_bits_minus_one, action: MapAction::Map, .. }) =
            (outcome, command)
        {
            self.check_translation_table(itt, event_bits_minus_one + 1, control.memory());
        }
        match outcome {
            Ok(()) if control.is_quiescent(self.index) => Ok(CommandProgress::Done),
            Ok(()) => Ok(CommandProgress::Begun),
            Err(Refusal::Reason(reason)) => {
                Err(CommandFault::Refused(CommandError { opcode: command.opcode(), reason }))
            }
            Err(Refusal::NoRoom) => Err(CommandFault::NoRoom(command.opcode())),
            Err(Refusal::OutOfMemory) => Err(CommandFault::OutOfMemory(command.opcode())),
        }
    }

    /// Records a fault if a device's interrupt translation table is not in memory.
    fn check_translation_table(&self, itt: u64, event_bits: u8, memory: &dyn GuestMemory) {
        if let Err(fault) = check_translation_table(itt, event_bits, memory) {
            let (reason, detail) =
                (FaultReason::TranslationTable, FaultDetail::Memory(fault.address));
            self.fault(gits::CREADR.offset(), reason, detail);
        }
    }

    fn fail(&self, state: &mut ItsRegisters, fault: CommandFault) {
        let command = FailedCommand { address: state.queue.command_address(), fault };
        state.faults.count += 1;
        state.faults.first.get_or_insert(command);
        state.faults.last = Some(command);
        let (reason, register) = match fault {
            CommandFault::Refused(_) | CommandFault::Unknown(_) => {
                (FaultReason::ItsCommand, gits::CREADR.offset())
            }
            CommandFault::NoRoom(_) => (FaultReason::Budget, gits::CREADR.offset()),
            CommandFault::OutOfMemory(_) => (FaultReason::OutOfMemory, gits::CREADR.offset()),
            CommandFault::Unreadable => (FaultReason::ItsTable, gits::CBASER.offset()),
        };
        self.fault(register, reason, FaultDetail::Command(command));
        match (fault, self.config.error_policy) {
            (CommandFault::Unreadable, _) | (_, ErrorPolicy::Stall) => {
                state.queue.stalled = true;
            }
            (_, ErrorPolicy::Skip) => state.queue.advance(),
        }
    }

    /// Sets the implementation. Returns `false` if there already is one.
    pub(crate) fn inject_directly(&self, direct: Arc<dyn DirectInjection>) -> bool {
        self.direct.set(direct).is_ok()
    }

    /// Returns `true` if hardware delivers the messages of an event that is mapped to this LPI.
    pub(crate) fn is_direct(&self, lpi: Lpi) -> bool {
        self.direct.get().is_some_and(|direct| direct.is_direct(lpi))
    }

    /// Looks up an event for direct injection, and takes its LPI's pending state.
    pub(crate) fn direct_target(
        &self,
        device: DeviceId,
        event: EventId,
    ) -> Result<Option<DirectTarget>, InListRegister> {
        let (device, event) = (device.get(), event.get());
        let look_up = |control: &mut Control| direct_target(control, self.index, device, event);
        let found = self.lpis.with_kicks_deferred(look_up);
        self.lpis.send_kicks();
        found
    }

    /// Executes a command that the implementation follows. The function is separate to keep the
    /// path without an implementation short.
    #[cold]
    #[inline(never)]
    fn execute_with(
        &self,
        direct: &dyn DirectInjection,
        command: Command,
        (state, control): (&mut ItsRegisters, &mut Control),
    ) -> Result<CommandProgress, CommandFault> {
        if direct.before(command) {
            return Ok(CommandProgress::Done);
        }
        let result = self.execute(command, state, control);
        let outcome = result.map(|_| command);
        // A sweep may still move pending state.
        if result != Ok(CommandProgress::Begun) && self.follow(direct, outcome, control) {
            return result;
        }
        state.queue.unfollowed = Some(outcome);
        Ok(CommandProgress::Begun)
    }

    /// Lets the implementation follow the command that was executed, if it has not. Returns `false`
    /// if it must wait for vCPUs to exit.
    fn is_followed(&self, state: &mut ItsRegisters, control: &mut Control) -> bool {
        let (Some(direct), Some(outcome)) = (self.direct.get(), state.queue.unfollowed) else {
            return true;
        };
        let is_followed = self.follow(&**direct, outcome, control);
        if is_followed {
            state.queue.unfollowed = None;
        }
        is_followed
    }

    fn follow(
        &self,
        direct: &dyn DirectInjection,
        outcome: Result<Command, CommandFault>,
        control: &mut Control,
    ) -> bool {
        let followed = direct.after(outcome.ok(), &mut |device, event| {
            direct_target(control, self.index, device.get(), event.get())
        });
        let work = u64::from(followed.unwrap_or(0)) * ENTRIES_PER_UNIT;
        control.count_work(u32::try_from(work).unwrap_or(u32::MAX));
        followed.is_ok()
    }
}

impl ItsRegisters {
    /// Removes a completed command from the queue, and counts it.
    const fn complete_command(&mut self) {
        self.queue.advance();
        self.commands += 1;
    }
}
