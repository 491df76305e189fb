//! Local APICs, limited to what messages need (SDM vol. 3A chapter 11): a request bit and an
//! in-service bit per vector.

use crate::lock::lock;
use msi_types::{Cpu, Delivery};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The lowest vector that a message may contain.
const LOWEST: u8 = 0x10;
/// The supported delivery mode.
const FIXED: u8 = 0;

/// A set of vectors, with one bit per vector.
#[derive(Clone, Copy, Default)]
struct Vectors([u64; 4]);

impl Vectors {
    fn set(&mut self, vector: u8) {
        self.0[usize::from(vector / 64)] |= 1 << (vector % 64);
    }

    fn clear(&mut self, vector: u8) {
        self.0[usize::from(vector / 64)] &= !(1 << (vector % 64));
    }

    fn contains(self, vector: u8) -> bool {
        self.0[usize::from(vector / 64)] & 1 << (vector % 64) != 0
    }

    fn highest(self) -> Option<u8> {
        (0..=u8::MAX).rev().find(|vector| self.contains(*vector))
    }
}

#[derive(Default)]
struct LocalApic {
    requested: Vectors,
    in_service: Vectors,
}

/// A decoded message, as the APICs receive it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arriving {
    pub destination: u32,
    /// DM bit: the destination is a set of APICs. The machine has only physical destinations.
    pub logical: bool,
    pub delivery_mode: u8,
    pub vector: u8,
}

/// The local APICs of all CPUs.
pub struct LocalApicBank {
    apics: Box<[Mutex<LocalApic>]>,
    /// Number of messages with an illegal vector, an unsupported delivery mode, or no matching
    /// APIC.
    refused: AtomicU64,
}

impl LocalApicBank {
    /// Creates one APIC per CPU.
    pub fn new(cpus: u32) -> Self {
        Self { apics: (0..cpus).map(|_| Mutex::default()).collect(), refused: AtomicU64::new(0) }
    }

    /// Returns a CPU's APIC ID. The APIC ID always differs from the CPU number, and some APIC IDs
    /// need more than 7 bits.
    pub const fn id(cpu: Cpu) -> u32 {
        cpu.get() * 0x41 + 3
    }

    /// Delivers a message.
    pub fn take(&self, message: Arriving) -> Delivery {
        let is_served =
            message.delivery_mode == FIXED && message.vector >= LOWEST && !message.logical;
        let target = self.cpus().find(|cpu| Self::id(*cpu) == message.destination);
        let Some(target) = target.filter(|_| is_served) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Delivery::Blocked;
        };
        self.request(target, message.vector);
        Delivery::Pending
    }

    /// Returns all CPUs.
    pub fn cpus(&self) -> impl Iterator<Item = Cpu> + use<> {
        (0..u32::try_from(self.apics.len()).unwrap_or(0)).map(Cpu::new)
    }

    /// Sets the request bit of a vector at a CPU's APIC.
    pub fn request(&self, cpu: Cpu, vector: u8) {
        if let Some(apic) = self.apics.get(cpu.index()) {
            lock(apic).requested.set(vector);
        }
    }

    /// Returns `true` if the vector is requested but not in service.
    pub fn is_requested(&self, cpu: Cpu, vector: u8) -> bool {
        self.apics.get(cpu.index()).is_some_and(|apic| lock(apic).requested.contains(vector))
    }

    /// Moves the highest requested vector into service and returns it. Returns `None` if no vector
    /// is requested, or if a vector in the same or a higher priority class is already in service.
    pub fn acknowledge(&self, cpu: Cpu) -> Option<u8> {
        let mut apic = lock(self.apics.get(cpu.index())?);
        let vector = apic.requested.highest()?;
        if apic.in_service.highest().is_some_and(|serving| serving >> 4 >= vector >> 4) {
            return None;
        }
        apic.requested.clear(vector);
        apic.in_service.set(vector);
        Some(vector)
    }

    /// Ends the in-service interrupt with the highest vector.
    pub fn end(&self, cpu: Cpu) {
        let Some(apic) = self.apics.get(cpu.index()) else { return };
        let mut apic = lock(apic);
        if let Some(vector) = apic.in_service.highest() {
            apic.in_service.clear(vector);
        }
    }

    /// Returns the number of messages that no APIC accepted.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

msi_types::debug_by!(LocalApicBank as "LocalApicBank", |it| {count: it.apics.len()});

#[cfg(test)]
mod tests {
    use super::*;

    const CPU1: Cpu = Cpu::new(1);

    fn physical(destination: u32, vector: u8) -> Arriving {
        Arriving { destination, logical: false, delivery_mode: FIXED, vector }
    }

    #[test]
    fn two_messages_of_one_vector_merge_into_one_request() {
        let apics = LocalApicBank::new(2);
        for _ in 0..2 {
            assert_eq!(apics.take(physical(LocalApicBank::id(CPU1), 0x41)), Delivery::Pending);
        }
        assert_eq!(apics.acknowledge(CPU1), Some(0x41));
        apics.end(CPU1);
        assert_eq!(apics.acknowledge(CPU1), None);
    }

    #[test]
    fn a_vector_in_service_blocks_equal_and_lower_classes() {
        let apics = LocalApicBank::new(2);
        for vector in [0x41, 0x48, 0x31, 0x52] {
            apics.request(CPU1, vector);
        }
        assert_eq!(apics.acknowledge(CPU1), Some(0x52));
        assert_eq!(apics.acknowledge(CPU1), None);
        apics.end(CPU1);
        assert_eq!(apics.acknowledge(CPU1), Some(0x48));
        assert_eq!(apics.acknowledge(CPU1), None);
    }

    #[test]
    fn illegal_vector_and_unknown_apic_are_refused() {
        let apics = LocalApicBank::new(1);
        let here = LocalApicBank::id(Cpu::new(0));
        let logical = Arriving { logical: true, ..physical(here, 0x40) };
        let refused = [physical(here, 0x0f), physical(LocalApicBank::id(CPU1), 0x40), logical];
        assert_eq!(refused.map(|message| apics.take(message)), [Delivery::Blocked; 3]);
        assert_eq!(apics.refused(), 3);
    }
}
