//! A device's message store, and the device behind it.

use super::controller::Controller;
use super::{Locked, assert_task, count_down, judge, lock};
use irq_domain::MessageCopy;
use msi_types::{
    FastMask, Fit, LevelMessages, Masking, MessageStore, MsiMessage, Rewrite, Shape, Storage,
    StoreError, StoreUpdate, Trigger,
};
use std::fmt;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Properties of a store in a test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StoreKind {
    pub(crate) slots: u16,
    pub(crate) masking: Masking,
    /// `true` if the mask bit can be used in hard-IRQ context.
    pub(crate) fast: bool,
    pub(crate) rewrite: Rewrite,
    pub(crate) address_bits: u8,
    /// `true` if the device derives all messages from one.
    pub(crate) group: bool,
    pub(crate) storage: Storage,
    pub(crate) trigger: Trigger,
}

impl StoreKind {
    pub(crate) const MSIX: Self = Self {
        slots: 8,
        masking: Masking::PerVector,
        fast: true,
        rewrite: Rewrite::Masked,
        address_bits: 64,
        group: false,
        storage: Storage::Bus,
        trigger: Trigger::Edge,
    };
    /// A store behind a command queue.
    pub(crate) const SLOW: Self = Self { fast: false, storage: Storage::Device, ..Self::MSIX };
    pub(crate) const MSI: Self = Self {
        masking: Masking::None,
        fast: false,
        rewrite: Rewrite::LowWordOnly,
        group: true,
        ..Self::MSIX
    };
    /// A level-triggered store, with two messages per slot.
    pub(crate) const LEVEL: Self =
        Self { trigger: Trigger::Level, storage: Storage::Device, ..Self::MSIX };
    pub(crate) const MSI_MASKABLE: Self = Self { group: true, ..Self::MSIX };
    /// The edge-triggered stores.
    pub(crate) const EDGES: [Self; 4] = [Self::MSIX, Self::SLOW, Self::MSI, Self::MSI_MASKABLE];

    pub(crate) fn shape(self) -> Shape {
        if self.group { Shape::AlignedGroup } else { Shape::Independent }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    message: Option<MsiMessage>,
    deassert: Option<MsiMessage>,
    masked: bool,
    waiting: bool,
}

/// A hook for [`Store::meanwhile`], which simulates another CPU.
pub(crate) struct Hook(pub Box<dyn FnOnce() + Send>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// The path between a device and its controller.
pub(crate) struct Bus(pub Box<dyn Fn(MsiMessage) -> MsiMessage + Send>);

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bus")
    }
}

/// A device's message store, and the device behind it.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) kind: StoreKind,
    pub(crate) controller: Arc<Controller>,
    /// Counter that each write decrements. The write that finds 0 fails.
    pub(crate) fail_in: AtomicUsize,
    pub(crate) writes: AtomicUsize,
    pub(crate) enabled: AtomicBool,
    pub(crate) granted: AtomicUsize,
    /// Hook that is called once, in the middle of an update, to simulate another CPU.
    pub(crate) meanwhile: Mutex<Option<Hook>>,
    pub(crate) bus: Mutex<Option<Bus>>,
    cells: Mutex<Vec<Slot>>,
}

impl Store {
    pub(crate) fn new(kind: StoreKind, controller: &Arc<Controller>) -> Arc<Self> {
        let masked = kind.masking == Masking::PerVector;
        let cell = Slot { masked, ..Slot::default() };
        Arc::new(Self {
            kind,
            controller: controller.clone(),
            fail_in: AtomicUsize::new(usize::MAX),
            writes: AtomicUsize::new(0),
            enabled: AtomicBool::new(false),
            granted: AtomicUsize::new(0),
            meanwhile: Mutex::new(None),
            bus: Mutex::new(None),
            cells: Mutex::new(vec![cell; usize::from(kind.slots)]),
        })
    }

    fn cells(&self) -> Locked<'_, Vec<Slot>> {
        lock(&self.cells)
    }

    pub(crate) fn message(&self, slot: u16) -> Option<MsiMessage> {
        self.cells()[usize::from(slot)].message
    }

    pub(crate) fn deassert(&self, slot: u16) -> Option<MsiMessage> {
        self.cells()[usize::from(slot)].deassert
    }

    pub(crate) fn is_masked(&self, slot: u16) -> bool {
        self.cells()[usize::from(slot)].masked
    }

    /// Makes the device fire: it sends its message, or holds it while the slot is masked.
    pub(crate) fn fire(&self, slot: u16) {
        let mut cells = self.cells();
        self.send(&mut cells, slot);
    }

    /// Resets the device, which turns it off and clears its state.
    pub(crate) fn reset(&self) {
        self.enabled.store(false, Ordering::SeqCst);
        self.granted.store(0, Ordering::Relaxed);
        let masked = self.kind.masking == Masking::PerVector;
        self.cells().fill(Slot { masked, ..Slot::default() });
    }

    fn send(&self, cells: &mut [Slot], slot: u16) {
        assert!(self.enabled.load(Ordering::SeqCst), "fired while the device is off");
        let cell = &mut cells[usize::from(slot)];
        cell.waiting = cell.masked;
        if cell.masked {
            return;
        }
        let holder = if self.kind.group { 0 } else { usize::from(slot) };
        let mut message = cells[holder].message.expect("fired without a message");
        if self.kind.group {
            message.data += u32::from(slot);
        }
        let seen = match &*self.bus.lock().unwrap() {
            Some(Bus(translate)) => translate(message),
            None => message,
        };
        self.controller.signal(seen);
    }

    fn set_mask(&self, cells: &mut [Slot], slot: u16, masked: bool) {
        if self.kind.masking == Masking::None {
            return;
        }
        let cell = &mut cells[usize::from(slot)];
        cell.masked = masked;
        if !masked && cell.waiting && self.enabled.load(Ordering::SeqCst) {
            self.send(cells, slot);
        }
    }
}

struct Open<'a> {
    store: &'a Store,
    cells: Locked<'a, Vec<Slot>>,
    failure: Option<StoreError>,
}

impl StoreUpdate for Open<'_> {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        let store = self.store;
        store.writes.fetch_add(1, Ordering::Relaxed);
        if self.failure.is_some() {
            return;
        }
        assert!(!store.kind.group || slot == 0, "a group has one message");
        if !count_down(&store.fail_in) {
            self.failure = Some(StoreError { slot, reason: "injected" });
            return;
        }
        let cell = &mut self.cells[usize::from(slot)];
        if store.enabled.load(Ordering::SeqCst) && cell.message.is_some_and(|old| old != message) {
            let old = cell.message.unwrap();
            match store.kind.rewrite {
                Rewrite::Masked => assert!(cell.masked, "rewritten while it can fire"),
                Rewrite::AddressOnly => assert_eq!(old.data, message.data, "torn"),
                Rewrite::LowWordOnly => {
                    assert_eq!(
                        (old.data, old.address_high()),
                        (message.data, message.address_high()),
                        "torn"
                    );
                }
                Rewrite::Never => panic!("rewritten"),
                Rewrite::Atomic64 => {}
            }
        }
        cell.message = Some(message);
    }

    fn write_level(&mut self, slot: u16, messages: LevelMessages) {
        assert_eq!(self.store.kind.trigger, Trigger::Level, "two messages for a slot of one");
        self.write(slot, messages.assert);
        self.cells[usize::from(slot)].deassert = Some(messages.deassert);
    }

    fn mask(&mut self, slot: u16) {
        self.store.set_mask(&mut self.cells, slot, true);
    }

    fn unmask(&mut self, slot: u16) {
        self.store.set_mask(&mut self.cells, slot, false);
    }
}

impl MessageStore for Store {
    fn slots(&self) -> u16 {
        self.kind.slots
    }

    fn fit(&self) -> Fit {
        Fit::new(self.kind.rewrite).with_address_bits(self.kind.address_bits)
    }

    fn masking(&self) -> Masking {
        self.kind.masking
    }

    fn storage(&self) -> Storage {
        self.kind.storage
    }

    fn trigger(&self) -> Trigger {
        self.kind.trigger
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        assert_task();
        let mut open = Open { store: self, cells: self.cells(), failure: None };
        change(&mut open);
        let failure = open.failure;
        drop(open);
        let hook = self.meanwhile.lock().unwrap().take();
        if let Some(Hook(hook)) = hook {
            hook();
        }
        failure.map_or(Ok(()), Err)
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError> {
        assert_task();
        // Only turning the store on can fail here. The tests that remove a device cover devices
        // that cannot be turned off.
        if enabled && !count_down(&self.fail_in) {
            return Err(StoreError { slot: 0, reason: "injected" });
        }
        self.enabled.store(enabled, Ordering::SeqCst);
        Ok(())
    }

    fn grant(&self, vectors: NonZeroU16) -> Result<(), StoreError> {
        assert!(!self.enabled.load(Ordering::SeqCst), "granted while the store is on");
        self.granted.store(usize::from(vectors.get()), Ordering::Relaxed);
        Ok(())
    }

    fn fast_mask(&self) -> Option<&dyn FastMask> {
        self.kind.fast.then_some(self)
    }
}

/// Returns a driver's function that copies the store's messages. The core must call it while
/// the store is locked.
pub(crate) fn take_copies<const N: usize>(
    copies: &Arc<Mutex<[Option<MsiMessage>; N]>>,
    store: &Arc<Store>,
) -> Arc<MessageCopy> {
    let (copies, store) = (copies.clone(), store.clone());
    Arc::new(move |slot, message| {
        judge(store.cells.try_lock().is_err(), "copied without the store's lock");
        lock(&copies)[usize::from(slot)] = message;
    })
}

impl Drop for Store {
    fn drop(&mut self) {
        assert_task();
    }
}

impl FastMask for Store {
    fn mask(&self, slot: u16) {
        self.set_mask(&mut self.cells(), slot, true);
    }

    fn unmask(&self, slot: u16) {
        self.set_mask(&mut self.cells(), slot, false);
    }

    fn is_pending(&self, slot: u16) -> bool {
        self.cells()[usize::from(slot)].waiting
    }
}
