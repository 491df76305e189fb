//! From a vector to its gates: a radix table whose parts are allocated on the first request of a vector among
//! them and stay where they are for good, so that dispatch walks it without a lock.

use crate::descriptor::Action;
use crate::sync::Gate;
use alloc::boxed::Box;
use alloc::vec::Vec;
use msi_types::{Cpu, Vector};
use once_cell::race::OnceBox;

/// Vectors are below this: the GIC's INTIDs have at most 24 bits.
pub(crate) const VECTORS: u32 = 1 << 24;

/// Each level resolves 8 bits.
const FANOUT: usize = 256;

/// The gates of one vector, on a cache line of its own: neighbouring vectors fire on different CPUs.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct Slot {
    /// For an interrupt that any CPU may take.
    pub(crate) shared: Gate<Action>,
    /// For one that is private to each CPU: one gate per CPU.
    private: OnceBox<Box<[PrivateGate]>>,
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
        Some(&self.private.get()?.get(cpu.index())?.0)
    }

    /// The gates of all CPUs: none if the vector was never requested as a private one. Any context.
    pub(crate) fn all_private(&self) -> impl Iterator<Item = &Gate<Action>> {
        self.private.get().into_iter().flat_map(|gates| gates.iter()).map(|gate| &gate.0)
    }

    /// Makes the private gates. Task: allocates.
    pub(crate) fn ensure_private(&self, cpus: usize) {
        self.private.get_or_init(|| Box::new((0..cpus).map(|_| PrivateGate(Gate::new())).collect()));
    }
}

type Leaf = [Slot; FANOUT];
type Middle = [OnceBox<Leaf>; FANOUT];

/// The table. Memory in proportion to what is requested: 16 KiB per 256 vectors of which one is, 2 KiB per
/// 65536.
#[derive(Debug)]
pub(crate) struct Table {
    /// Vectors below 65536, one step nearer: most systems have no others.
    low: Box<Middle>,
    high: Box<[OnceBox<Middle>; FANOUT]>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { low: boxed(OnceBox::new), high: boxed(OnceBox::new) }
    }

    /// The slot of a vector; `None` if no vector near it was ever requested. Any context; loads only.
    #[inline]
    pub(crate) fn get(&self, vector: Vector) -> Option<&Slot> {
        let index = vector.index();
        let middle = match index >> 16 {
            0 => &*self.low,
            high => self.high.get(high)?.get()?,
        };
        middle.get((index >> 8) % FANOUT)?.get()?.get(index % FANOUT)
    }

    /// The slot of a vector, made if it is not there; `None` for vectors beyond [`VECTORS`]. Task: allocates.
    pub(crate) fn ensure(&self, vector: Vector) -> Option<&Slot> {
        let index = vector.index();
        let middle = match index >> 16 {
            0 => &*self.low,
            high => self.high.get(high)?.get_or_init(|| boxed(OnceBox::new)),
        };
        middle.get((index >> 8) % FANOUT)?.get_or_init(|| boxed(Slot::new)).get(index % FANOUT)
    }
}

/// An array made on the heap: some are too large for a kernel's stack.
fn boxed<T, const N: usize>(make: impl Fn() -> T) -> Box<[T; N]> {
    let mut items = Vec::with_capacity(N);
    items.resize_with(N, make);
    match items.into_boxed_slice().try_into() {
        Ok(array) => array,
        Err(_) => unreachable!("the slice was made with N items"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_stays_where_it_is() {
        let table = Table::new();
        for raw in [0, 255, 256, 8192, 0xffff, 0x1_0000, 0x12_3456, VECTORS - 1] {
            let made = core::ptr::from_ref(table.ensure(Vector::new(raw)).unwrap());
            assert_eq!(core::ptr::from_ref(table.get(Vector::new(raw)).unwrap()), made);
            assert_eq!(core::ptr::from_ref(table.ensure(Vector::new(raw)).unwrap()), made);
        }
    }

    #[test]
    fn vectors_of_different_numbers_have_different_slots() {
        let table = Table::new();
        let vectors = [0x00_0005, 0x00_0105, 0x01_0005, 0x01_0105, 0x05_0000, 0x00_0500];
        let mut slots: Vec<_> =
            vectors.iter().map(|v| core::ptr::from_ref(table.ensure(Vector::new(*v)).unwrap())).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), vectors.len());
    }

    #[test]
    fn numbers_beyond_the_space_have_no_slot() {
        let table = Table::new();
        for raw in [VECTORS, 0x0100_0005, u32::MAX] {
            assert!(table.ensure(Vector::new(raw)).is_none());
            assert!(table.get(Vector::new(raw)).is_none());
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_was_requested() {
        let table = Table::new();
        table.ensure(Vector::new(8192));
        assert!(table.get(Vector::new(8192 + 256)).is_none());
        assert!(table.get(Vector::new(0x2_0000)).is_none());
    }
}
