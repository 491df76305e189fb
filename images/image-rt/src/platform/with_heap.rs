//! Kernel services that LPIs and the interrupt core require.

use super::Kernel;
use crate::cpu;
use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ops::Range;
use core::ptr::NonNull;
use gic_driver::{Coherence, GicPlatform, Observed, Table, TableLayout};
use irq_domain::Host;
use msi_types::{Cpu, TaskContext};

impl GicPlatform for Kernel {
    /// Allocates physically contiguous, zeroed memory below the limit, aligned as requested (up to
    /// 64 KiB and to the size of the table). Until it is configured otherwise, a controller may
    /// bypass the caches, so we clean the zeros to memory.
    fn allocate_table(&self, layout: TableLayout) -> Option<Table> {
        let heap = heap_layout(layout.bytes, layout.align)?;
        // SAFETY: the size is not zero, as `heap_layout` has checked.
        let memory = NonNull::new(unsafe { alloc_zeroed(heap) })?;
        let address = memory.as_ptr().expose_provenance();
        // Don't retry: the heap is one contiguous block, so we wouldn't find lower memory.
        if (address + heap.size()) as u64 > 1 << layout.address_bits {
            // SAFETY: allocated above with this layout, and not shared yet.
            unsafe { dealloc(memory.as_ptr(), heap) };
            return None;
        }
        cpu::clean(address, heap.size());
        // `handle` is ours to use. We store the alignment, because we need it to free the memory.
        Some(Table::new(address as u64, layout.bytes, heap.align()))
    }

    fn release_table(&self, table: Table) {
        if let Some(heap) = heap_layout(table.bytes, table.handle as u64) {
            // SAFETY: `allocate_table` allocated the table with this layout, and `Table` cannot be
            // cloned.
            unsafe { dealloc(pointer::<u8>(&table, 0), heap) };
        }
    }

    /// Stores with a single access, because a controller may read at any time.
    fn store8(&self, table: &Table, offset: u64, value: u8) {
        // SAFETY: the drivers guarantee that the offset is in the table, whose memory has no other
        // user.
        unsafe { pointer::<u8>(table, offset).write_volatile(value) };
    }

    fn store64(&self, table: &Table, offset: u64, value: u64) {
        // SAFETY: the drivers guarantee that the offset is in the table and aligned.
        unsafe { pointer::<u64>(table, offset).write_volatile(value.to_le()) };
    }

    fn load8(&self, table: &Table, offset: u64) -> u8 {
        // SAFETY: the drivers guarantee that the offset is in the table.
        unsafe { pointer::<u8>(table, offset).read_volatile() }
    }

    /// Uses a barrier if the controller is coherent with caches, and otherwise cleans to the point
    /// of coherency. Both order the stores before the register write that follows.
    fn publish(&self, table: &Table, range: Range<u64>, coherence: Coherence) {
        match coherence {
            Coherence::Coherent => cpu::publish_stores(),
            Coherence::NonCoherent => {
                let bytes = range.end.saturating_sub(range.start);
                cpu::clean((table.address + range.start) as usize, bytes as usize);
            }
        }
    }

    /// Also invalidates the cache lines if the controller is coherent with them.
    fn observe(&self, table: &Table, range: Range<u64>, _: Coherence) -> Observed {
        let bytes = range.end.saturating_sub(range.start);
        cpu::observe((table.address + range.start) as usize, bytes as usize);
        Observed::Yes
    }

    fn cpu(&self) -> Cpu {
        Cpu::new(cpu::current() as u32)
    }
}

impl TaskContext for Kernel {
    /// Returns `true` unless interrupts are masked: each CPU runs one task, and handles interrupts
    /// with interrupts masked.
    fn may_wait(&self) -> bool {
        !cpu::irq_is_masked()
    }
}

impl Host for Kernel {
    /// A kernel with threads should read the CPU number from its per-CPU data. The core calls this
    /// function only with interrupts masked.
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
