//! Services that `gic-driver` requires, on top of `someboot`'s memory and ArceOS's mappings.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ops::Range;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0, DAIF, Readable, Writeable};
use gic_driver::gic_arch::Affinity;
use gic_driver::msi_types::Cpu;
use gic_driver::{
    Coherence, GicPlatform, IrqState, LocalCpu, PhysicalRegion, Platform, RawMmio, Table,
    TableLayout, Wait,
};
use someboot::DCacheOp;
use someboot::mem::{dcache_range, phys_to_virt, virt_to_phys};

use crate::common::ioremap;

/// The kernel. Stateless: CPU numbers and memory belong to `someboot`.
#[derive(Clone, Copy, Debug)]
pub struct ArceOs;

impl LocalCpu for ArceOs {
    fn irq_save(&self) -> IrqState {
        let state = DAIF.get();
        DAIF.set(state | DAIF::I::Masked.value);
        IrqState::new(state as usize)
    }

    fn irq_restore(&self, state: IrqState) {
        DAIF.set(state.get() as u64);
    }

    /// Spins, because this package is below ArceOS's scheduler and can't yield to other tasks.
    fn yield_now(&self) {
        self.relax();
    }
}

impl Platform for ArceOs {
    type Mmio = RawMmio;

    fn map(&self, region: PhysicalRegion) -> Option<RawMmio> {
        let bytes = usize::try_from(region.bytes).ok()?;
        let mapped = ioremap(region.base, bytes).ok()?;
        // SAFETY: `ioremap` maps the region as device memory until `iounmap`, which nothing calls.
        Some(unsafe { RawMmio::new(mapped.as_nonnull_ptr(), bytes) })
    }

    /// Waits a microsecond per call, and gives up after about a second.
    fn wait(&self, turn: u32) -> Wait {
        let (start, microsecond) = (CNTVCT_EL0.get(), CNTFRQ_EL0.get() / 1_000_000);
        // Don't pause in the first calls, because most hardware is ready by then.
        while turn > 16 && CNTVCT_EL0.get() - start < microsecond {
            core::hint::spin_loop();
        }
        if turn < 1_000_000 { Wait::Again } else { Wait::GiveUp }
    }
}

impl GicPlatform for ArceOs {
    fn cpu(&self) -> Cpu {
        Cpu::new(someboot::smp::early_current_cpu_idx() as u32)
    }

    fn affinity(&self) -> Option<Affinity> {
        affinity(GicPlatform::cpu(self).index())
    }

    fn allocate_table(&self, layout: TableLayout) -> Option<Table> {
        let heap = heap_layout(layout.bytes, layout.align)?;
        // SAFETY: `heap_layout` checks that the size is not 0.
        let memory = unsafe { alloc_zeroed(heap) };
        if memory.is_null() {
            return None;
        }
        dcache_range(DCacheOp::Clean, memory, heap.size());
        Some(Table::new(virt_to_phys(memory) as u64, layout.bytes, heap.align()))
    }

    fn release_table(&self, table: Table) {
        if let Some(heap) = heap_layout(table.bytes, table.handle as u64) {
            // SAFETY: `allocate_table` allocated the memory with this layout, and tables can't be
            // cloned.
            unsafe { dealloc(pointer(&table, 0), heap) };
        }
    }

    fn store8(&self, table: &Table, offset: u64, value: u8) {
        // SAFETY: drivers pass offsets within their table, whose memory has no other user.
        unsafe { pointer(table, offset).write_volatile(value) };
    }

    fn store64(&self, table: &Table, offset: u64, value: u64) {
        // SAFETY: drivers pass aligned offsets within their table, whose memory has no other user.
        unsafe { pointer(table, offset).cast::<u64>().write_volatile(value.to_le()) };
    }

    fn load8(&self, table: &Table, offset: u64) -> u8 {
        // SAFETY: drivers pass offsets within their table.
        unsafe { pointer(table, offset).read_volatile() }
    }

    fn publish(&self, table: &Table, range: Range<u64>, coherence: Coherence) {
        if coherence == Coherence::NonCoherent {
            let bytes = range.end.saturating_sub(range.start) as usize;
            dcache_range(DCacheOp::Clean, pointer(table, range.start), bytes);
        }
        barrier::dsb(barrier::SY);
    }
}

/// Returns the affinity of a logical CPU.
pub fn affinity(cpu: usize) -> Option<Affinity> {
    someboot::smp::cpu_idx_to_id(cpu).map(|mpidr| Affinity::from_mpidr(mpidr as u64))
}

fn heap_layout(bytes: u64, align: u64) -> Option<Layout> {
    let size = usize::try_from(bytes).ok().filter(|size| *size > 0)?;
    Layout::from_size_align(size, usize::try_from(align).ok()?).ok()
}

fn pointer(table: &Table, offset: u64) -> *mut u8 {
    phys_to_virt((table.address + offset) as usize)
}
