//! The root controller and its inputs, which requests claim, and the state that is shared by
//! handles, devices and [`Interrupts`](crate::Interrupts).
//!
//! Lock order, outermost first. While a lock is held, no lock above it may be acquired:
//!
//! ```text
//! hotplug (TaskRwLock)
//! └─ a device's state; requests at the root, then a wired input's target (TaskLock)
//!    ├─ a device's attachment, then a layer's records, then its pages (TaskLock)
//!    └─ IRQ numbers, names (TaskLock)
//!       └─ an interrupt's control block (IrqLock)
//!          └─ the list of deferred frees, a store's mask bits (IrqLock); locks
//!             inside the controller
//! ```

use crate::affinity::first_reachable;
use crate::affinity::placement::CpuPool;
use crate::error::RequestError;
use crate::irq::registry::IrqRegistry;
use crate::request::deferred_free::DeferredFree;
use crate::runtime::Host;
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

/// The parts of the interrupt core, each of which locks internally.
pub(crate) struct IrqCore {
    pub(crate) registry: IrqRegistry,
    pub(crate) pool: CpuPool,
    pub(crate) root: RootController,
    pub(crate) deferred: DeferredFree,
}

impl IrqCore {
    pub(crate) fn host(&self) -> &dyn Host {
        self.registry.host()
    }

    /// Frees objects that were dropped in a context that must not free memory. Does nothing if the
    /// caller may not wait.
    ///
    /// Context: task; may sleep.
    pub(crate) fn reclaim(&self) {
        self.deferred.reclaim(&self.registry);
    }
}
