//! A device with rings in RAM. Each ring holds the message that the device sends to signal work in
//! that ring.

use crate::bus::{AccessWidth, MmioDevice};
use crate::lock::lock;
use crate::pci::Signaled;
use crate::platform::CpuBus;
use crate::ram::{Publication, Ram};
use msi_types::{
    Delivery, Fit, Masking, MessageStore, MsiMessage, RequesterId, Rewrite, SignalMsi, StoreError,
    StoreUpdate,
};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

/// The device's registers.
mod registers {
    /// Number of rings, 32 bits. Read-only.
    pub(super) const COUNT: u64 = 0x00;
    /// Control register, 32 bits. Bit 0: the device may send messages.
    pub(super) const CONTROL: u64 = 0x04;
    /// Ring address, 64 bits.
    pub(super) const RINGS: u64 = 0x08;
    /// Ring doorbell, 32 bits. Writing this register makes the device check its rings again.
    pub(super) const LOOK: u64 = 0x10;
}

/// Size of a ring in memory, in bytes. A ring consists of the message's address, followed by a word
/// with the message's data and the [`ARMED`] flag.
const RING: u64 = 16;
/// Flag in the second word: the device may signal work in the ring.
const ARMED: u64 = 1 << 32;

/// The hardware side.
pub struct RingDevice {
    requester: RequesterId,
    ram: Arc<Ram>,
    upstream: Arc<dyn SignalMsi<RequesterId>>,
    state: Mutex<RingState>,
}

struct RingState {
    enabled: bool,
    rings: u64,
    /// `true` for each ring that has work that hasn't been signaled yet.
    waiting: Vec<bool>,
}

impl RingDevice {
    /// Size of the register region in bytes.
    pub const SIZE: u64 = 0x1000;

    /// Creates a device with this many rings that sends its messages to `upstream`.
    pub fn new(
        requester: RequesterId,
        rings: u16,
        ram: Arc<Ram>,
        upstream: Arc<dyn SignalMsi<RequesterId>>,
    ) -> Self {
        let state = RingState { enabled: false, rings: 0, waiting: vec![false; rings.into()] };
        Self { requester, ram, upstream, state: Mutex::new(state) }
    }

    /// Adds work to a ring.
    pub fn signal(&self, ring: u16) -> Signaled {
        let mut state = lock(&self.state);
        if !state.enabled {
            return Signaled::Off;
        }
        if let Some(message) = self.message(&state, ring.into()) {
            return Signaled::Sent(self.send(message));
        }
        if let Some(waiting) = state.waiting.get_mut(usize::from(ring)) {
            *waiting = true;
        }
        Signaled::Held
    }

    fn look(&self, state: &mut RingState) {
        for ring in 0..state.waiting.len() {
            if state.enabled
                && state.waiting[ring]
                && let Some(message) = self.message(state, ring)
            {
                state.waiting[ring] = false;
                self.send(message);
            }
        }
    }

    /// Returns a ring's message if the ring is armed.
    fn message(&self, state: &RingState, ring: usize) -> Option<MsiMessage> {
        let at = state.rings.checked_add(RING * u64::try_from(ring).ok()?)?;
        let second = self.ram.device_load64(at.checked_add(8)?)?;
        let data = u32::try_from(second & 0xffff_ffff).ok()?;
        let address = self.ram.device_load64(at)?;
        (second & ARMED != 0).then_some(MsiMessage { address, data })
    }

    fn send(&self, message: MsiMessage) -> Delivery {
        self.upstream.signal_msi(self.requester, message)
    }
}

impl MmioDevice for RingDevice {
    fn read(&self, offset: u64, _width: AccessWidth) -> u64 {
        let state = lock(&self.state);
        match offset {
            registers::COUNT => u64::try_from(state.waiting.len()).unwrap_or(0),
            registers::CONTROL => u64::from(state.enabled),
            registers::RINGS => state.rings,
            _ => 0,
        }
    }

    fn write(&self, offset: u64, _width: AccessWidth, value: u64) {
        let mut state = lock(&self.state);
        match offset {
            registers::CONTROL => state.enabled = value & 1 != 0,
            registers::RINGS => state.rings = value & !7,
            _ => {}
        }
        self.look(&mut state);
    }
}

msi_types::debug_by!(RingDevice as "RingDevice", |it| {requester: it.requester});

/// The driver side of the device. The rings share the vectors that the driver was granted.
#[derive(Debug)]
pub struct RingStore {
    bus: CpuBus,
    ram: Arc<Ram>,
    registers: u64,
    /// Address of the rings in memory, and number of rings.
    rings: (u64, u16),
    slots: u16,
    /// Number of vectors that the rings share; 0 until this number is known.
    vectors: AtomicU16,
    /// The device lock, which serializes updates.
    open: Mutex<()>,
}

impl RingStore {
    /// Takes over the device at `registers`, using up to `slots` vectors. Returns `None` if memory
    /// for its rings can't be allocated.
    pub fn new(bus: CpuBus, ram: Arc<Ram>, registers: u64, slots: u16) -> Option<Self> {
        let count = u16::try_from(bus.read32(registers + registers::COUNT)).ok()?;
        let base = ram.allocate(u64::from(count) * RING, 64)?;
        let store = Self {
            bus,
            ram,
            registers,
            rings: (base, count),
            slots,
            vectors: AtomicU16::new(0),
            open: Mutex::new(()),
        };
        store.bus.write(registers + registers::RINGS, AccessWidth::Double, base);
        Some(store)
    }

    /// Returns the number of rings.
    pub fn rings(&self) -> u16 {
        self.rings.1
    }

    /// Returns the slot of the vector that signals a ring's work.
    pub fn slot_of(&self, ring: u16) -> u16 {
        ring % self.vectors.load(Ordering::Relaxed).max(1)
    }

    /// Stores in each ring the message of the vector that the ring uses (as returned by `sent`),
    /// and arms the ring.
    pub fn share(&self, vectors: u16, sent: impl Fn(u16) -> Option<MsiMessage>) {
        self.vectors.store(vectors, Ordering::Relaxed);
        let _open = lock(&self.open);
        for ring in 0..self.rings.1 {
            if let Some(message) = sent(self.slot_of(ring)) {
                self.store(ring, message);
                self.arm(ring, ARMED);
            }
        }
        self.look();
    }

    fn place(&self, ring: u16) -> u64 {
        self.rings.0 + u64::from(ring) * RING
    }

    fn of_slot(&self, slot: u16) -> impl Iterator<Item = u16> + use<> {
        let step = usize::from(self.vectors.load(Ordering::Relaxed));
        // Until the number of vectors is known, no ring belongs to a slot.
        let first = if step == 0 { self.rings.1 } else { slot };
        (first..self.rings.1).step_by(step.max(1))
    }

    fn store(&self, ring: u16, message: MsiMessage) {
        self.write(self.place(ring), message.address);
        self.write(self.place(ring) + 8, u64::from(message.data));
    }

    fn arm(&self, ring: u16, armed: u64) {
        let second = self.place(ring) + 8;
        let data = self.ram.cpu_load64(second) & !ARMED;
        self.write(second, data | armed);
    }

    fn write(&self, address: u64, value: u64) {
        self.ram.cpu_store64(address, value);
        self.ram.publish(address..address + 8, Publication::Clean);
    }

    fn look(&self) {
        self.bus.write(self.registers + registers::LOOK, AccessWidth::Word, 1);
    }
}

impl MessageStore for RingStore {
    fn slots(&self) -> u16 {
        self.slots
    }

    fn fit(&self) -> Fit {
        Fit::new(Rewrite::Masked)
    }

    fn masking(&self) -> Masking {
        Masking::PerVector
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        let _open = lock(&self.open);
        change(&mut RingUpdate(self));
        self.look();
        Ok(())
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError> {
        let control = self.registers + registers::CONTROL;
        self.bus.write(control, AccessWidth::Word, u64::from(enabled));
        Ok(())
    }
}

impl Drop for RingStore {
    fn drop(&mut self) {
        self.bus.write(self.registers + registers::CONTROL, AccessWidth::Word, 0);
        self.ram.release(self.rings.0, u64::from(self.rings.1) * RING);
    }
}

struct RingUpdate<'a>(&'a RingStore);

impl StoreUpdate for RingUpdate<'_> {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        self.0.of_slot(slot).for_each(|ring| self.0.store(ring, message));
    }

    fn mask(&mut self, slot: u16) {
        self.0.of_slot(slot).for_each(|ring| self.0.arm(ring, 0));
    }

    fn unmask(&mut self, slot: u16) {
        self.0.of_slot(slot).for_each(|ring| self.0.arm(ring, ARMED));
    }
}
