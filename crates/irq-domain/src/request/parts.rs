//! State that is shared by handles, devices and [`Interrupts`](crate::Interrupts).
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

use crate::affinity::placement::CpuPool;
use crate::host::Host;
use crate::irq::registry::IrqRegistry;
use crate::request::deferred_free::DeferredFree;
use crate::request::root_controller::RootController;

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
