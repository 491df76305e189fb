//! Defects put into a machine on purpose, to show that a run tells them.

use irq_domain::IrqContext;
use msi_types::{
    FastMask, Fit, LevelMessages, Masking, MessageStore, MsiMessage, MsiParent, Pending, Storage,
    StoreError, StoreUpdate, Trigger,
};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A defect of the machine. It stands in for one of the drivers, the interrupt core or the
/// platform.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The platform publishes nothing, as if the drivers had forgotten to: where tables are not
    /// coherent, the controllers never see what was written.
    NeverPublishes,
    /// With each so many-th interrupt that is handled, the interrupt core makes it pending again.
    RePends(NonZeroU32),
    /// With each so many-th interrupt, the interrupt core runs no handler.
    SkipsHandlers(NonZeroU32),
    /// The controllers refuse every other device.
    RefusesHalf,
    /// Every device gets one vector, however many there are.
    GrantsOne,
    /// PCI functions' MSI-X stays off: their drivers leave the capability disabled.
    StaysOff,
    /// The controllers hand out messages for an address where no doorbell listens.
    WrongDoorbell,
}

/// The faults of a machine that runs.
#[derive(Debug)]
pub(crate) struct FaultInjector {
    kind: Fault,
    /// Interrupts that were handled, and devices that were set up.
    handled: AtomicU32,
    devices: AtomicU32,
}

/// A handler, as the interrupt core has it.
pub(crate) type Handler = Box<dyn Fn(&IrqContext<'_>) + Send + Sync>;

impl FaultInjector {
    pub(crate) const fn new(kind: Fault) -> Self {
        Self { kind, handled: AtomicU32::new(0), devices: AtomicU32::new(0) }
    }

    /// The controller, as the next device sees it.
    ///
    /// # Errors
    /// It refuses the device.
    pub(crate) fn admit(&self) -> Result<(), String> {
        let device = self.devices.fetch_add(1, Ordering::Relaxed);
        if self.kind == Fault::RefusesHalf && !device.is_multiple_of(2) {
            return Err("refused, as a fault that was put in".to_owned());
        }
        Ok(())
    }

    /// Returns the number of vectors that a device may ask for, of `most`.
    pub(crate) const fn limit(&self, most: u16) -> u16 {
        if matches!(self.kind, Fault::GrantsOne) { 1 } else { most }
    }

    /// A device's message store, as the interrupt core sees it.
    pub(crate) fn store(&self, store: Arc<dyn MessageStore>) -> Arc<dyn MessageStore> {
        match self.kind {
            Fault::StaysOff if is_msix(&*store) => {
                Arc::new(Tampered { store, astray: 0, off: true })
            }
            Fault::WrongDoorbell => Arc::new(Tampered { store, astray: ASTRAY, off: false }),
            _ => store,
        }
    }

    /// A device's handler, as the interrupt core runs it. `parent` is what the interrupt core sends
    /// again by.
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

/// Is it a table, rather than a capability, in which a message's data have 32 bits?
fn is_msix(store: &dyn MessageStore) -> bool {
    store.storage() == Storage::Bus && store.fit().data_bits == 32
}

/// Offset added to misdirected messages: the embedded machines have nothing there.
const ASTRAY: u64 = 0x7000_0000;

/// A store that is not what the interrupt core believes.
struct Tampered {
    store: Arc<dyn MessageStore>,
    /// Added to the addresses that are stored.
    astray: u64,
    /// It is never enabled.
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
