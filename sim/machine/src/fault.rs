//! Deliberate defects, which show that a run detects the corresponding bugs.

use irq_domain::IrqContext;
use msi_types::{
    FastMask, Fit, LevelMessages, Masking, MessageStore, MsiMessage, MsiParent, Pending, Storage,
    StoreError, StoreUpdate, Trigger,
};
use std::num::{NonZeroU16, NonZeroU32};
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

    /// Wraps a device's message store for the interrupt core.
    pub(crate) fn store(&self, store: Arc<dyn MessageStore>) -> Arc<dyn MessageStore> {
        match self.kind {
            Fault::StaysOff if is_msix(&*store) => {
                Arc::new(Tampered { store, astray: 0, off: true })
            }
            Fault::WrongDoorbell => Arc::new(Tampered { store, astray: ASTRAY, off: false }),
            _ => store,
        }
    }

    /// Returns `true` if stores hold the right messages, so that drivers may copy them.
    pub(crate) const fn keeps_messages(&self) -> bool {
        !matches!(self.kind, Fault::WrongDoorbell)
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

/// Returns `true` for an MSI-X table: its data words are 32 bits wide, and it isn't an MSI
/// capability.
fn is_msix(store: &dyn MessageStore) -> bool {
    store.storage() == Storage::Bus && store.fit().data_bits == 32
}

/// Offset added to message addresses by [`Fault::WrongDoorbell`]. The embedded machines have no
/// device or memory at the resulting addresses.
const ASTRAY: u64 = 0x7000_0000;

/// A message store that misbehaves on purpose.
struct Tampered {
    store: Arc<dyn MessageStore>,
    /// Offset added to the stored addresses.
    astray: u64,
    /// Set if the store ignores requests to enable it.
    off: bool,
}

struct TamperedUpdate<'a> {
    update: &'a mut dyn StoreUpdate,
    astray: u64,
}

impl TamperedUpdate<'_> {
    const fn message(&self, message: MsiMessage) -> MsiMessage {
        MsiMessage { address: message.address + self.astray, ..message }
    }
}

impl StoreUpdate for TamperedUpdate<'_> {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        self.update.write(slot, self.message(message));
    }

    fn write_level(&mut self, slot: u16, messages: LevelMessages) {
        let [assert, deassert] =
            [messages.assert, messages.deassert].map(|message| self.message(message));
        self.update.write_level(slot, LevelMessages { assert, deassert });
    }

    fn mask(&mut self, slot: u16) {
        self.update.mask(slot);
    }

    fn unmask(&mut self, slot: u16) {
        self.update.unmask(slot);
    }

    fn clear(&mut self, slot: u16) {
        self.update.clear(slot);
    }
}

impl MessageStore for Tampered {
    fn slots(&self) -> u16 {
        self.store.slots()
    }

    fn fit(&self) -> Fit {
        self.store.fit()
    }

    fn masking(&self) -> Masking {
        self.store.masking()
    }

    fn storage(&self) -> Storage {
        self.store.storage()
    }

    fn trigger(&self) -> Trigger {
        self.store.trigger()
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        self.store.update(&mut |update| change(&mut TamperedUpdate { update, astray: self.astray }))
    }

    fn grant(&self, vectors: NonZeroU16) -> Result<(), StoreError> {
        self.store.grant(vectors)
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError> {
        self.store.set_enabled(enabled && !self.off)
    }

    fn fast_mask(&self) -> Option<&dyn FastMask> {
        self.store.fast_mask()
    }
}
