//! Direct injection by hardware, which follows the commands of an ITS.

use super::execution::CommandProgress;
use super::{Its, ItsRegisters};
use crate::lpi::{Control, ENTRIES_PER_UNIT};
use crate::monitor::direct::{DirectInjection, DirectTarget};
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

    /// Looks up an event for direct injection.
    pub(crate) fn direct_target(&self, device: DeviceId, event: EventId) -> Option<DirectTarget> {
        let (device, event) = (device.get(), event.get());
        self.read_lpis().direct_target(self.index, device, event)
    }

    /// Executes a command that the implementation follows. The function is separate to keep the
    /// path without an implementation short.
    #[cold]
    #[inline(never)]
    pub(super) fn execute_with(
        &self,
        direct: &dyn DirectInjection,
        command: Command,
        (state, control): (&ItsRegisters, &mut Control),
    ) -> Result<CommandProgress, CommandFault> {
        if direct.before(command) {
            return Ok(CommandProgress::Done);
        }
        let result = self.execute(command, state, control);
        let followed = direct.after(result.is_ok().then_some(command), &|device, event| {
            control.direct_target(self.index, device.get(), event.get())
        });
        let work = u64::from(followed) * ENTRIES_PER_UNIT;
        control.count_work(u32::try_from(work).unwrap_or(u32::MAX));
        result
    }
}
