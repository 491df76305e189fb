//! State that handles, devices and [`Interrupts`](crate::Interrupts) share.
//!
//! Lock order, outermost first. A lock must not be acquired while one further down is held:
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

use crate::affinity::placement::Placement;
use crate::host::Host;
use crate::irq::registry::IrqRegistry;
use crate::request::deferred_free::DeferredFree;
use crate::request::root_controller::RootController;

/// The parts of the interrupt core. Each part locks internally.
pub(crate) struct IrqCore {
    pub(crate) registry: IrqRegistry,
    pub(crate) placement: Placement,
    pub(crate) root: RootController,
    pub(crate) deferred: DeferredFree,
}

impl IrqCore {
    pub(crate) fn host(&self) -> &dyn Host {
        self.registry.host()
    }

    /// Frees objects that were dropped in a context that must not free them. Does nothing in a
    /// context that may not wait.
    ///
    /// Context: task; may sleep.
    pub(crate) fn reclaim(&self) {
        self.deferred.reclaim(&self.registry);
    }
}
