//! Porting Doorbell to a kernel: everything that it asks of one. [`Platform`] is for the drivers, [`Host`] for the
//! interrupt core; a kernel that has an interrupt core of its own needs [`Platform`] alone.
//!
//! Here the kernel is a test bench whose memory is identity-mapped and never moves. Where yours differs, the comments say
//! what the drivers count on.

use crate::ledger::Counted;
use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use gic_driver::{Coherence, PhysicalRegion, Platform, RawMmio, Table, TableLayout, Wait};
use image_rt::boot::DEVICE_MEMORY;
use image_rt::cpu;
use irq_domain::{Host, IrqState};
use msi_types::Cpu;

/// The kernel. It has no state: the current CPU's number is in `TPIDR_EL1`, the heap and the page tables are the image's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel;

/// Not RAM on `virt`, and far from all that is.
const NO_MEMORY: u64 = 0x60_0000_0000;
static BREAK_NEXT_TABLE: AtomicBool = AtomicBool::new(false);

/// The next table is no memory: for the test of what the driver does when the controller cannot reach one. Only for an
/// interrupt translation table, which drivers do not touch themselves.
pub(crate) fn break_next_table() {
    BREAK_NEXT_TABLE.store(true, Ordering::Relaxed);
}

/// A bounded wait gives up after this many turns of a microsecond each.
const MOST_TURNS: u32 = 1_000_000;

impl Platform for Kernel {
    /// [`RawMmio`] would do; this one counts on the way.
    type Mmio = Counted;
    /// DAIF.
    type IrqState = u64;

    /// Registers stay mapped for ever: drivers never unmap.
    fn map(&self, region: PhysicalRegion) -> Option<Counted> {
        let end = region.base.checked_add(region.bytes)?;
        let mapped = DEVICE_MEMORY.iter().any(|range| range.start <= region.base && end <= range.end);
        let base = NonNull::new(region.base as *mut u8).filter(|_| mapped)?;
        // SAFETY: the start code maps this as device memory, identically and for ever; the image has no references
        // into it, and drivers reach each device by one mapping.
        let raw = unsafe { RawMmio::new(base, region.bytes as usize) };
        Some(Counted::new(raw, region.base))
    }

    /// Physically contiguous, zeroed, aligned as asked (up to 64 KiB and to the table's own size), below the limit. The
    /// controller may read past the caches until it is told otherwise, so that the zeros are cleaned out to memory.
    fn allocate_table(&self, layout: TableLayout) -> Option<Table> {
        if BREAK_NEXT_TABLE.swap(false, Ordering::Relaxed) {
            return Some(Table { address: NO_MEMORY, bytes: layout.bytes, handle: 0 });
        }
        let heap = heap_layout(layout.bytes, layout.align)?;
        // SAFETY: the size is not zero, `heap_layout` checked.
        let memory = NonNull::new(unsafe { alloc_zeroed(heap) })?;
        let address = memory.as_ptr().expose_provenance();
        // The heap is one piece: what does not lie low enough now never will.
        if (address + heap.size()) as u64 > 1 << layout.address_bits {
            // SAFETY: allocated above with this layout, and nobody knows of it yet.
            unsafe { dealloc(memory.as_ptr(), heap) };
            return None;
        }
        cpu::clean(address, heap.size());
        // `handle` is the platform's own: here the alignment, which the heap wants back.
        Some(Table { address: address as u64, bytes: layout.bytes, handle: heap.align() })
    }

    fn release_table(&self, table: Table) {
        // No layout has the alignment 0, which stands for the table that was no memory.
        if let Some(heap) = heap_layout(table.bytes, table.handle as u64) {
            // SAFETY: `allocate_table` made it with this layout, and `Table` cannot be cloned.
            unsafe { dealloc(pointer::<u8>(&table, 0), heap) };
        }
    }

    /// One store each: a controller may look at any moment.
    fn store8(&self, table: &Table, offset: u64, value: u8) {
        // SAFETY: in the table (the drivers' promise), whose memory is nobody else's.
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

    /// A barrier where the controller looks into the caches, else a clean to the point of coherency. Both order the stores
    /// before the register write that follows.
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

    fn irq_save(&self) -> u64 {
        cpu::irq_save()
    }

    fn irq_restore(&self, state: u64) {
        cpu::irq_restore(state);
    }

    /// About a second in all. The first turns do not wait: most hardware is ready by then.
    fn wait(&self, turn: u32) -> Wait {
        if turn > 16 {
            let start = cpu::ticks();
            while (cpu::ticks() - start) * 1000 < cpu::ticks_per_millisecond() {
                core::hint::spin_loop();
            }
        }
        if turn < MOST_TURNS { Wait::Again } else { Wait::GiveUp }
    }
}

impl Host for Kernel {
    /// A kernel with threads asks its per-CPU data. The core calls this only with interrupts saved.
    fn current_cpu(&self) -> Option<Cpu> {
        Some(Platform::cpu(self))
    }

    /// A CPU runs one task, and takes interrupts with interrupts masked.
    fn may_wait(&self) -> bool {
        !cpu::irq_is_masked()
    }

    fn irq_save(&self) -> IrqState {
        IrqState::new(cpu::irq_save() as usize)
    }

    fn irq_restore(&self, state: IrqState) {
        cpu::irq_restore(state.get() as u64);
    }

    /// A kernel with a scheduler would yield in task context.
    fn relax(&self) {
        core::hint::spin_loop();
    }
}

fn heap_layout(bytes: u64, align: u64) -> Option<Layout> {
    let size = usize::try_from(bytes).ok().filter(|size| *size > 0)?;
    Layout::from_size_align(size, usize::try_from(align).ok()?).ok()
}

fn pointer<T>(table: &Table, offset: u64) -> *mut T {
    core::ptr::with_exposed_provenance_mut((table.address + offset) as usize)
}
