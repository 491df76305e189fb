//! State that handles, devices and the kernel's [`Interrupts`](crate::Interrupts) share.

use crate::deferred_free::DeferredFree;
use crate::descriptors::Descriptors;
use crate::host::Host;
use crate::placement::Placement;
use crate::root_controller::RootController;

/// The parts of the interrupt core. Each locks for itself.
pub(crate) struct IrqCore {
    pub(crate) descriptors: Descriptors,
    pub(crate) placement: Placement,
    pub(crate) root: RootController,
    pub(crate) deferred: DeferredFree,
}

impl IrqCore {
    pub(crate) fn host(&self) -> &dyn Host {
        self.descriptors.host()
    }

    /// Frees what was dropped where it could not be freed. Does nothing in another context.
    ///
    /// Context: task; may sleep.
    pub(crate) fn reclaim(&self) {
        self.deferred.reclaim(&self.descriptors);
    }
}
