//! Deliberate defects, which show that a run detects the corresponding bugs.

use irq_domain::IrqContext;
use msi_types::{MsiParent, Pending};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A defect injected on purpose, which simulates a bug in a driver, the interrupt core or the
/// platform.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Fault {
    /// No defect.
    #[default]
    None,
    /// The platform does not publish tables, as if the drivers had forgotten to clean the caches. A
    /// controller whose table accesses are not coherent never sees what the drivers write.
    NeverPublishes,
    /// The interrupt core resends every n-th interrupt after handling it.
    RePends(NonZeroU32),
    /// The interrupt core skips the handler for every n-th interrupt.
    SkipsHandlers(NonZeroU32),
    /// The controllers refuse every second device that asks to be attached.
    RefusesHalf,
    /// Each device is granted one vector, however many it asks for.
    GrantsOne,
    /// The drivers leave the MSI-X capability of PCI functions disabled.
    StaysOff,
    /// The controllers compose messages whose address is not a doorbell.
    WrongDoorbell,
}

/// Injects the fault into a running machine.
#[derive(Debug)]
pub(crate) struct FaultInjector {
    kind: Fault,
    /// Counts of interrupts handled and devices set up.
    handled: AtomicU32,
    devices: AtomicU32,
}

/// A handler, as the interrupt core stores it.
pub(crate) type Handler = Box<dyn Fn(&IrqContext<'_>) + Send + Sync>;

impl FaultInjector {
    pub(crate) const fn new(kind: Fault) -> Self {
        Self { kind, handled: AtomicU32::new(0), devices: AtomicU32::new(0) }
    }

    /// Admits the next device to its controller, unless the fault makes the controller refuse it.
    ///
    /// # Errors
    /// Returns an error if the injected fault makes the controller refuse this device.
    pub(crate) fn admit(&self) -> Result<(), String> {
        let device = self.devices.fetch_add(1, Ordering::Relaxed);
        if self.kind == Fault::RefusesHalf && !device.is_multiple_of(2) {
            return Err("refused by the injected fault".to_owned());
        }
        Ok(())
    }

    /// Returns the number of vectors that a device may request: `most`, or fewer.
    pub(crate) const fn limit(&self, most: u16) -> u16 {
        if matches!(self.kind, Fault::GrantsOne) { 1 } else { most }
    }

    /// Returns `true` if the device may send messages. `is_msix` is set for the functions whose
    /// capability the drivers leave disabled.
    pub(crate) const fn is_on(&self, is_msix: bool) -> bool {
        !(is_msix && matches!(self.kind, Fault::StaysOff))
    }

    /// Returns the offset of the controllers' message addresses from their doorbells.
    pub(crate) const fn astray(&self) -> u64 {
        if matches!(self.kind, Fault::WrongDoorbell) { ASTRAY } else { 0 }
    }

    /// Wraps a device's handler for the interrupt core. The wrapper uses `parent` to resend
    /// interrupts.
    pub(crate) fn handler(
        self: &Arc<Self>,
        parent: Arc<dyn MsiParent>,
        handler: Handler,
    ) -> Handler {
        let faults = Arc::clone(self);
        match self.kind {
            Fault::RePends(every) => Box::new(move |context| {
                if faults.is_one_in(every) {
                    parent.set_pending(context.hwirq(), Pending::Set);
                }
                handler(context);
            }),
            Fault::SkipsHandlers(every) => Box::new(move |context| {
                if !faults.is_one_in(every) {
                    handler(context);
                }
            }),
            _ => handler,
        }
    }

    fn is_one_in(&self, every: NonZeroU32) -> bool {
        (self.handled.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(every.get())
    }
}

/// Offset added to message addresses by [`Fault::WrongDoorbell`]. The embedded machines have no
/// device or memory at the resulting addresses.
const ASTRAY: u64 = 0x7000_0000;
