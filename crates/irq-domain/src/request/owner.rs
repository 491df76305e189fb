//! Owners of devices' domains and attachments.

use super::deferred_free::Teardown;
use super::root_controller::IrqCore;
use crate::irq::registry::IrqRegistry;
use alloc::collections::TryReserveError;
use doorbell_fallible::Shared;

/// The owner of a device's domain or attachment. Its `drop` tears the object down, immediately if
/// the caller may wait and otherwise in a later task.
pub(crate) struct Owner {
    core: Shared<IrqCore>,
    tear_down: Option<Shared<Teardown>>,
}

impl Owner {
    /// Creates the owner of an object that `tear_down` tears down.
    ///
    /// Context: task; may sleep.
    pub(crate) fn try_new(
        core: &Shared<IrqCore>,
        tear_down: impl Fn(&IrqRegistry) + Send + Sync + 'static,
    ) -> Result<Self, TryReserveError> {
        let tear_down = Shared::<Teardown>::try_unsized(tear_down, |block| block)?;
        core.deferred.reserve(core.host())?;
        Ok(Self { core: core.clone(), tear_down: Some(tear_down) })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let IrqCore { deferred, registry, .. } = &*self.core;
        if let Some(tear_down) = self.tear_down.take() {
            deferred.release_owner(registry, tear_down);
        }
    }
}
