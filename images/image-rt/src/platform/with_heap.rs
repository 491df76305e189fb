//! The kernel services that LPIs and the interrupt core need.

use super::Kernel;
use crate::cpu;
use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ops::Range;
use core::ptr::NonNull;
use gic_driver::{Coherence, GicPlatform, Table, TableLayout};
use irq_domain::Host;
use msi_types::{Cpu, TaskContext};

impl GicPlatform for Kernel {
    /// Physically contiguous, zeroed, aligned as asked (up to 64 KiB and to the table's own size),
    /// below the limit. The controller may read past the caches until it is told otherwise, so that
    /// the zeros are cleaned out to memory.
    fn allocate_table(&self, layout: TableLayout) -> Option<Table> {
        let heap = heap_layout(layout.bytes, layout.align)?;
        // SAFETY: the size is not zero, `heap_layout` checked.
        let memory = NonNull::new(unsafe { alloc_zeroed(heap) })?;
        let address = memory.as_ptr().expose_provenance();
        // The heap is one piece: what does not lie low enough now never will.
        if (address + heap.size()) as u64 > 1 << layout.address_bits {
            // SAFETY: allocated above with this layout, and not shared yet.
            unsafe { dealloc(memory.as_ptr(), heap) };
            return None;
        }
        cpu::clean(address, heap.size());
        // `handle` is the platform's own: here the alignment, which the heap wants back.
        Some(Table::new(address as u64, layout.bytes, heap.align()))
    }

    fn release_table(&self, table: Table) {
        if let Some(heap) = heap_layout(table.bytes, table.handle as u64) {
            // SAFETY: `allocate_table` made it with this layout, and `Table` cannot be cloned.
            unsafe { dealloc(pointer::<u8>(&table, 0), heap) };
        }
    }

    /// One store each: a controller may look at any moment.
    fn store8(&self, table: &Table, offset: u64, value: u8) {
        // SAFETY: in the table (the drivers' promise), whose memory has no other user.
        unsafe { pointer::<u8>(table, offset).write_volatile(value) };
    }

    fn store64(&self, table: &Table, offset: u64, value: u64) {
        // SAFETY: in the table and aligned (the drivers' promise).
        unsafe { pointer::<u64>(table, offset).write_volatile(value.to_le()) };
    }

    fn load8(&self, table: &Table, offset: u64) -> u8 {
        // SAFETY: in the table (the drivers' promise).
        unsafe { pointer::<u8>(table, offset).read_volatile() }
    }

    /// A barrier where the controller looks into the caches, else a clean to the point of
    /// coherency. Both order the stores before the register write that follows.
    fn publish(&self, table: &Table, range: Range<u64>, coherence: Coherence) {
        match coherence {
            Coherence::Coherent => cpu::publish_stores(),
            Coherence::NonCoherent => {
                let bytes = range.end.saturating_sub(range.start);
                cpu::clean((table.address + range.start) as usize, bytes as usize);
            }
        }
    }

    fn cpu(&self) -> Cpu {
        Cpu::new(cpu::current() as u32)
    }
}

impl TaskContext for Kernel {
    /// A CPU runs one task, and takes interrupts with interrupts masked.
    fn may_wait(&self) -> bool {
        !cpu::irq_is_masked()
    }
}

impl Host for Kernel {
    /// A kernel with threads asks its per-CPU data. The core calls this only with interrupts saved.
    fn current_cpu(&self) -> Option<Cpu> {
        Some(GicPlatform::cpu(self))
    }
}

fn heap_layout(bytes: u64, align: u64) -> Option<Layout> {
    let size = usize::try_from(bytes).ok().filter(|size| *size > 0)?;
    Layout::from_size_align(size, usize::try_from(align).ok()?).ok()
}

fn pointer<T>(table: &Table, offset: u64) -> *mut T {
    core::ptr::with_exposed_provenance_mut((table.address + offset) as usize)
}
