//! The inputs of root controllers: claimed by requests, moved, and given back.

use crate::cpu_choice::first_reachable;
use crate::descriptor::Descriptor;
use crate::error::{MoveError, RequestError};
use crate::host::Host;
use crate::irq::Irq;
use crate::lock::TaskLock;
use crate::runtime::Runtime;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use msi_types::{Cpu, HwIrq, MsiError, Trigger, WiredParent};
use spin::mutex::SpinMutexGuard;

/// The root controller, if the core hands out its interrupts, and the locks over its inputs and
/// those of other controllers with wired inputs.
pub(crate) struct RootController {
    parent: Option<Arc<dyn WiredParent>>,
    /// Held while an input's target changes, and while it is given back.
    targets: TaskLock<()>,
    /// Held while an interrupt at the root is requested.
    requests: TaskLock<()>,
}

impl RootController {
    pub(crate) const fn new(parent: Option<Arc<dyn WiredParent>>) -> Self {
        Self { parent, targets: TaskLock::new(()), requests: TaskLock::new(()) }
    }

    /// # Errors
    /// [`RequestError::NoWiredParent`].
    pub(crate) fn parent(&self) -> Result<&Arc<dyn WiredParent>, RequestError> {
        self.parent.as_ref().ok_or(RequestError::NoWiredParent)
    }

    /// Lets one request at a time look for a free input and take it. Task.
    pub(crate) fn one_request(&self, host: &dyn Host) -> SpinMutexGuard<'_, ()> {
        self.requests.lock(host)
    }

    /// Moves an input, and lists it if the caller wants to know. Task.
    pub(crate) fn relocate(
        &self,
        runtime: &Runtime,
        (descriptor, parent): (&Descriptor, &dyn WiredParent),
        to: Cpu,
        mut list: Option<&mut Vec<Irq>>,
    ) -> Result<(), MoveError> {
        if let Some(irqs) = &mut list {
            irqs.try_reserve(1)?;
        }
        let _targets = self.targets.lock(runtime.host());
        // The input is given back under this lock, after its handler went.
        if !descriptor.control.lock(runtime.host()).is_installed() {
            return Err(MoveError::UnknownIrq(descriptor.irq));
        }
        runtime.check_online(to)?;
        if descriptor.target() == to {
            return Ok(());
        }
        parent.set_target(descriptor.hwirq, to)?;
        descriptor.set_target(to);
        if let Some(irqs) = list {
            irqs.push(descriptor.irq);
        }
        Ok(())
    }

    /// The target of an input once no move is under way. Task.
    pub(crate) fn settled_target(&self, host: &dyn Host, descriptor: &Descriptor) -> Cpu {
        let _targets = self.targets.lock(host);
        descriptor.target()
    }

    /// Gives an input back. Task.
    pub(crate) fn release(&self, host: &dyn Host, parent: &dyn WiredParent, hwirq: HwIrq) {
        let _not_while_it_moves = self.targets.lock(host);
        parent.release(hwirq, NonZeroU16::MIN);
    }
}

/// Masks a claimed input and gives it a trigger and a CPU. Task.
pub(crate) fn prepare(
    parent: &dyn WiredParent,
    (hwirq, trigger): (HwIrq, Trigger),
    first_choice: Cpu,
    online: &[Cpu],
) -> Result<Cpu, MsiError> {
    parent.mask(hwirq);
    parent.set_trigger(hwirq, trigger)?;
    first_reachable(first_choice, online, |cpu| parent.set_target(hwirq, cpu).map(|()| cpu))
}
