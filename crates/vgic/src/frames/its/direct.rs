//! Direct injection by hardware, which follows the commands of an ITS.

use super::execution::CommandProgress;
use super::{Its, ItsRegisters};
use crate::lpi::{Control, ENTRIES_PER_UNIT};
use crate::monitor::direct::{DirectInjection, DirectTarget, InListRegister};
use crate::monitor::events::CommandFault;
use alloc::sync::Arc;
use gic_arch::Lpi;
use gic_arch::its::Command;
use msi_types::{DeviceId, EventId};

impl Its {
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
        let look_up = |control: &mut Control| control.direct_target(self.index, device, event);
        let found = self.lpis.with_kicks_deferred(look_up);
        self.lpis.send_kicks();
        found
    }

    /// Executes a command that the implementation follows. The function is separate to keep the
    /// path without an implementation short.
    #[cold]
    #[inline(never)]
    pub(super) fn execute_with(
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
    pub(super) fn is_followed(&self, state: &mut ItsRegisters, control: &mut Control) -> bool {
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
            control.direct_target(self.index, device.get(), event.get())
        });
        let work = u64::from(followed.unwrap_or(0)) * ENTRIES_PER_UNIT;
        control.count_work(u32::try_from(work).unwrap_or(u32::MAX));
        followed.is_ok()
    }
}
