//! The dispatch table: a radix table from hwirqs to handler cells. Each part of the table is
//! allocated when a vector in it is first requested. Parts are never moved or freed, so dispatch
//! can walk the table without a lock.

use crate::irq::descriptor::Action;
use crate::irq::handler_cell::HandlerCell;
use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::{OnceBox, try_box, try_box_array, try_collect};
use msi_types::{Cpu, HwIrq};

/// Exclusive upper limit for vectors. A GIC's INTIDs have at most 24 bits.
pub(crate) const HWIRQS: u32 = 1 << 24;

/// Number of entries per level. Each level resolves 8 bits.
const FANOUT: usize = 256;

/// All cells for one vector. Each vector's cells start on a cache line of their own, because
/// adjacent vectors may fire on different CPUs.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct HwIrqEntry {
    /// The cell for an interrupt that any CPU may take.
    pub(crate) shared: HandlerCell<Action>,
    /// The cells for an interrupt that is private to each CPU, indexed by CPU.
    private: OnceBox<[Vec<PrivateCell>; 1]>,
}

/// One CPU's cell for a private interrupt, on its own cache line.
#[repr(align(64))]
#[derive(Debug)]
struct PrivateCell(HandlerCell<Action>);

impl HwIrqEntry {
    fn new() -> Self {
        Self { shared: HandlerCell::new(), private: OnceBox::new() }
    }

    /// Returns the cell for `cpu` if the vector was ever requested as a private one.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn private(&self, cpu: Cpu) -> Option<&HandlerCell<Action>> {
        let [cells] = self.private.get()?;
        Some(&cells.get(cpu.index())?.0)
    }

    /// Returns the cells for all CPUs; the result is empty if the vector was never requested as a
    /// private one.
    ///
    /// Context: any.
    pub(crate) fn all_private(&self) -> impl Iterator<Item = &HandlerCell<Action>> {
        self.private.get().into_iter().flatten().flatten().map(|cell| &cell.0)
    }

    /// Allocates the private cells.
    ///
    /// Context: task; may sleep.
    pub(crate) fn ensure_private(&self, cpus: usize) -> Result<(), TryReserveError> {
        let cells = || try_collect((0..cpus).map(|_| PrivateCell(HandlerCell::new())));
        self.private.get_or_try_init(|| cells().and_then(try_box)).map(drop)
    }
}

type Leaf = [HwIrqEntry; FANOUT];
type Middle = [OnceBox<Leaf>; FANOUT];

/// The dispatch table, which uses 16 KiB for each aligned range of 256 vectors that contains a
/// requested one, and 2 KiB for each such range of 65536.
#[derive(Debug)]
pub(crate) struct DispatchTable {
    /// Vectors below 65536, whose lookup is one step shorter. Most systems have no higher vectors.
    low: Box<Middle>,
    high: Box<[OnceBox<Middle>; FANOUT]>,
}

impl DispatchTable {
    pub(crate) fn new() -> Result<Self, TryReserveError> {
        Ok(Self { low: try_box_array(OnceBox::new)?, high: try_box_array(OnceBox::new)? })
    }

    /// Returns a vector's entry, or `None` if no vector in its range of 256 was ever requested. The
    /// lookup only reads memory.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn get(&self, hwirq: HwIrq) -> Option<&HwIrqEntry> {
        let index = hwirq.index();
        let middle = match index >> 16 {
            0 => &*self.low,
            high => self.high.get(high)?.get()?,
        };
        middle.get((index >> 8) % FANOUT)?.get()?.get(index % FANOUT)
    }

    /// Returns a vector's entry, allocating it if necessary, or `None` for vectors beyond
    /// [`HWIRQS`].
    ///
    /// Context: task; may sleep.
    pub(crate) fn ensure(&self, hwirq: HwIrq) -> Result<Option<&HwIrqEntry>, TryReserveError> {
        let index = hwirq.index();
        let middle = match index >> 16 {
            0 => &*self.low,
            high => match self.high.get(high) {
                Some(middle) => middle.get_or_try_init(|| try_box_array(OnceBox::new))?,
                None => return Ok(None),
            },
        };
        let Some(leaf) = middle.get((index >> 8) % FANOUT) else { return Ok(None) };
        Ok(leaf.get_or_try_init(|| try_box_array(HwIrqEntry::new))?.get(index % FANOUT))
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dispatch_entry_keeps_its_address() {
        let table = DispatchTable::new().unwrap();
        for raw in [0, 255, 256, 8192, 0xffff, 0x1_0000, 0x12_3456, HWIRQS - 1] {
            let made = core::ptr::from_ref(table.ensure(HwIrq::new(raw)).unwrap().unwrap());
            assert_eq!(core::ptr::from_ref(table.get(HwIrq::new(raw)).unwrap()), made);
            assert_eq!(core::ptr::from_ref(table.ensure(HwIrq::new(raw)).unwrap().unwrap()), made);
        }
    }

    #[test]
    fn different_hwirqs_have_different_entries() {
        let table = DispatchTable::new().unwrap();
        let vectors = [0x00_0005, 0x00_0105, 0x01_0005, 0x01_0105, 0x05_0000, 0x00_0500];
        let mut entries: Vec<_> = vectors
            .iter()
            .map(|v| core::ptr::from_ref(table.ensure(HwIrq::new(*v)).unwrap().unwrap()))
            .collect();
        entries.sort_unstable();
        entries.dedup();
        assert_eq!(entries.len(), vectors.len());
    }

    #[test]
    fn hwirqs_beyond_the_number_space_have_no_dispatch_entry() {
        let table = DispatchTable::new().unwrap();
        for raw in [HWIRQS, 0x0100_0005, u32::MAX] {
            assert!(table.ensure(HwIrq::new(raw)).unwrap().is_none());
            assert!(table.get(HwIrq::new(raw)).is_none());
        }
    }

    #[test]
    fn an_unrequested_hwirq_has_no_entry() {
        let table = DispatchTable::new().unwrap();
        table.ensure(HwIrq::new(8192)).unwrap();
        assert!(table.get(HwIrq::new(8192 + 256)).is_none());
        assert!(table.get(HwIrq::new(0x2_0000)).is_none());
    }
}
