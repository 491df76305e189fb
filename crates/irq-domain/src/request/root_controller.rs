//! The root controller and its inputs, which requests claim.

use crate::affinity::choice::first_reachable;
use crate::error::RequestError;
use crate::host::Host;
use crate::irq::registry::IrqRegistry;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::lock::{IrqLock, TaskGuard, TaskLock};
use msi_types::{Cpu, HwIrq, MsiError, Trigger, WiredParent};

/// The root controller, if the core manages its wired interrupts, and the lock that serializes
/// requests for any controller's inputs.
pub(crate) struct RootController {
    parent: Option<Arc<dyn WiredParent>>,
    /// All vectors that have ever been requested as private interrupts.
    private: IrqLock<Vec<HwIrq>>,
    requests: TaskLock<()>,
}

impl RootController {
    pub(crate) const fn new(parent: Option<Arc<dyn WiredParent>>) -> Self {
        Self { parent, private: IrqLock::new(Vec::new()), requests: TaskLock::new(()) }
    }

    /// Returns the root controller.
    ///
    /// # Errors
    /// [`RequestError::NoWiredParent`] if the core was created without one.
    pub(crate) fn parent(&self) -> Result<&Arc<dyn WiredParent>, RequestError> {
        self.parent.as_ref().ok_or(RequestError::NoWiredParent)
    }

    /// Adds a vector to the list of private vectors. The caller must hold the lock from
    /// [`one_request`].
    ///
    /// Context: task; may sleep.
    ///
    /// [`one_request`]: Self::one_request
    pub(crate) fn note_private(
        &self,
        host: &dyn Host,
        hwirq: HwIrq,
    ) -> Result<(), TryReserveError> {
        let (known, count) = self.private.with(host, |list| (list.contains(&hwirq), list.len()));
        if known {
            return Ok(());
        }
        let mut grown = Vec::new();
        grown.try_reserve_exact(count + 1)?;
        // Free the old list outside the lock.
        let _former = self.private.with(host, |list| {
            grown.extend_from_slice(list);
            grown.push(hwirq);
            core::mem::replace(list, grown)
        });
        Ok(())
    }

    /// Unmasks the private interrupts that are enabled on the calling CPU, `cpu`.
    ///
    /// Context: any.
    pub(crate) fn unmask_private(&self, registry: &IrqRegistry, cpu: Cpu) {
        let Some(parent) = &self.parent else { return };
        self.private.with(registry.host(), |list| {
            for hwirq in list.iter().filter(|one| registry.dispatcher.is_enabled_on(cpu, **one)) {
                parent.unmask(*hwirq);
            }
        });
    }

    /// Acquires the lock under which a request looks for a free input and claims it.
    ///
    /// Context: task; may sleep.
    pub(crate) fn one_request(&self, host: &dyn Host) -> TaskGuard<'_, ()> {
        self.requests.lock(host)
    }
}

/// Masks a claimed input, then sets its trigger mode and CPU.
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
