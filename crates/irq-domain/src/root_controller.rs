//! The root controller, whose inputs requests claim.

use crate::cpu_choice::first_reachable;
use crate::error::RequestError;
use crate::host::Host;
use alloc::sync::Arc;
use doorbell_lock::{TaskGuard, TaskLock};
use msi_types::{Cpu, HwIrq, MsiError, Trigger, WiredParent};

/// The root controller, if the core hands out its interrupts, and the lock over requests at it and
/// at other controllers with wired inputs.
pub(crate) struct RootController {
    parent: Option<Arc<dyn WiredParent>>,
    requests: TaskLock<()>,
}

impl RootController {
    pub(crate) const fn new(parent: Option<Arc<dyn WiredParent>>) -> Self {
        Self { parent, requests: TaskLock::new(()) }
    }

    /// # Errors
    /// [`RequestError::NoWiredParent`].
    pub(crate) fn parent(&self) -> Result<&Arc<dyn WiredParent>, RequestError> {
        self.parent.as_ref().ok_or(RequestError::NoWiredParent)
    }

    /// Lets one request at a time look for a free input and take it.
    ///
    /// Context: task; may sleep.
    pub(crate) fn one_request(&self, host: &dyn Host) -> TaskGuard<'_, ()> {
        self.requests.lock(host)
    }
}

/// Masks a claimed input and gives it a trigger and a CPU.
///
/// Context: task; may sleep.
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
