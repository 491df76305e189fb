//! From a vector to its gates: a radix table whose parts are allocated on the first request of a
//! vector among them and stay where they are for good, so that dispatch walks it without a lock.

use crate::descriptor::Action;
use crate::sync::Gate;
use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::{try_box, try_box_array, try_collect};
use msi_types::{Cpu, HwIrq};
use once_cell::race::OnceBox;

/// Vectors are below this: the GIC's INTIDs have at most 24 bits.
pub(crate) const HWIRQS: u32 = 1 << 24;

/// Each level resolves 8 bits.
const FANOUT: usize = 256;

/// The gates of one vector, on a cache line of its own: neighbouring vectors fire on different
/// CPUs.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct Slot {
    /// For an interrupt that any CPU may take.
    pub(crate) shared: Gate<Action>,
    /// For one that is private to each CPU: one gate per CPU.
    private: OnceBox<[Vec<PrivateGate>; 1]>,
}

/// One CPU's gate of a private interrupt, on a cache line of its own.
#[repr(align(64))]
#[derive(Debug)]
struct PrivateGate(Gate<Action>);

impl Slot {
    fn new() -> Self {
        Self { shared: Gate::new(), private: OnceBox::new() }
    }

    /// The gate of `cpu`, if the vector was ever requested as a private one. Any context.
    pub(crate) fn private(&self, cpu: Cpu) -> Option<&Gate<Action>> {
        let [gates] = self.private.get()?;
        Some(&gates.get(cpu.index())?.0)
    }

    /// The gates of all CPUs: none if the vector was never requested as a private one. Any context.
    pub(crate) fn all_private(&self) -> impl Iterator<Item = &Gate<Action>> {
        self.private.get().into_iter().flatten().flatten().map(|gate| &gate.0)
    }

    /// Makes the private gates. Task: allocates.
    pub(crate) fn ensure_private(&self, cpus: usize) -> Result<(), TryReserveError> {
        let gates = || try_collect((0..cpus).map(|_| PrivateGate(Gate::new())));
        self.private.get_or_try_init(|| gates().and_then(try_box)).map(drop)
    }
}

type Leaf = [Slot; FANOUT];
type Middle = [OnceBox<Leaf>; FANOUT];

/// The table. Memory in proportion to what is requested: 16 KiB per 256 vectors of which one is, 2
/// KiB per 65536.
#[derive(Debug)]
pub(crate) struct Table {
    /// Vectors below 65536, one step nearer: most systems have no others.
    low: Box<Middle>,
    high: Box<[OnceBox<Middle>; FANOUT]>,
}

impl Table {
    pub(crate) fn new() -> Result<Self, TryReserveError> {
        Ok(Self { low: try_box_array(OnceBox::new)?, high: try_box_array(OnceBox::new)? })
    }

    /// The slot of a vector; `None` if no vector near it was ever requested. Any context; loads
    /// only.
    #[inline]
    pub(crate) fn get(&self, hwirq: HwIrq) -> Option<&Slot> {
        let index = hwirq.index();
        let middle = match index >> 16 {
            0 => &*self.low,
            high => self.high.get(high)?.get()?,
        };
        middle.get((index >> 8) % FANOUT)?.get()?.get(index % FANOUT)
    }

    /// The slot of a vector, made if it is not there; `None` for vectors beyond [`HWIRQS`]. Task:
    /// allocates.
    pub(crate) fn ensure(&self, hwirq: HwIrq) -> Result<Option<&Slot>, TryReserveError> {
        let index = hwirq.index();
        let middle = match index >> 16 {
            0 => &*self.low,
            high => match self.high.get(high) {
                Some(middle) => middle.get_or_try_init(|| try_box_array(OnceBox::new))?,
                None => return Ok(None),
            },
        };
        let Some(leaf) = middle.get((index >> 8) % FANOUT) else { return Ok(None) };
        Ok(leaf.get_or_try_init(|| try_box_array(Slot::new))?.get(index % FANOUT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_stays_where_it_is() {
        let table = Table::new().unwrap();
        for raw in [0, 255, 256, 8192, 0xffff, 0x1_0000, 0x12_3456, HWIRQS - 1] {
            let made = core::ptr::from_ref(table.ensure(HwIrq::new(raw)).unwrap().unwrap());
            assert_eq!(core::ptr::from_ref(table.get(HwIrq::new(raw)).unwrap()), made);
            assert_eq!(core::ptr::from_ref(table.ensure(HwIrq::new(raw)).unwrap().unwrap()), made);
        }
    }

    #[test]
    fn different_hwirqs_have_different_slots() {
        let table = Table::new().unwrap();
        let vectors = [0x00_0005, 0x00_0105, 0x01_0005, 0x01_0105, 0x05_0000, 0x00_0500];
        let mut slots: Vec<_> = vectors
            .iter()
            .map(|v| core::ptr::from_ref(table.ensure(HwIrq::new(*v)).unwrap().unwrap()))
            .collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), vectors.len());
    }

    #[test]
    fn numbers_beyond_the_space_have_no_slot() {
        let table = Table::new().unwrap();
        for raw in [HWIRQS, 0x0100_0005, u32::MAX] {
            assert!(table.ensure(HwIrq::new(raw)).unwrap().is_none());
            assert!(table.get(HwIrq::new(raw)).is_none());
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_was_requested() {
        let table = Table::new().unwrap();
        table.ensure(HwIrq::new(8192)).unwrap();
        assert!(table.get(HwIrq::new(8192 + 256)).is_none());
        assert!(table.get(HwIrq::new(0x2_0000)).is_none());
    }
}
