//! The image's implementation of the drivers' platform traits. Tests additionally use a table that
//! isn't backed by memory.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use gic_driver::{Coherence, GicPlatform, PhysicalRegion, Platform, RawMmio};
use gic_driver::{Table, TableLayout, Wait};
use image_rt::platform::Kernel as Image;
use irq_domain::{Host, IrqState, LocalCpu, TaskContext};
use msi_types::Cpu;

/// The kernel of this image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel;

/// An address that is not RAM on `virt`, far away from all RAM.
const NO_MEMORY: u64 = 0x60_0000_0000;
static BREAK_NEXT_TABLE: AtomicBool = AtomicBool::new(false);

/// Makes the next allocated table point to an address without memory, to test how the driver reacts
/// if the controller cannot access a table. May only be used for an interrupt translation table,
/// because drivers do not access interrupt translation tables themselves.
pub(crate) fn break_next_table() {
    BREAK_NEXT_TABLE.store(true, Ordering::Relaxed);
}

impl Platform for Kernel {
    type Mmio = RawMmio;

    fn map(&self, region: PhysicalRegion) -> Option<RawMmio> {
        Image.map(region)
    }

    fn wait(&self, turn: u32) -> Wait {
        Image.wait(turn)
    }
}

impl GicPlatform for Kernel {
    fn allocate_table(&self, layout: TableLayout) -> Option<Table> {
        if BREAK_NEXT_TABLE.swap(false, Ordering::Relaxed) {
            return Some(Table::new(NO_MEMORY, layout.bytes, 0));
        }
        Image.allocate_table(layout)
    }

    fn release_table(&self, table: Table) {
        if table.address != NO_MEMORY {
            Image.release_table(table);
        }
    }

    fn store8(&self, table: &Table, offset: u64, value: u8) {
        Image.store8(table, offset, value);
    }

    fn store64(&self, table: &Table, offset: u64, value: u64) {
        Image.store64(table, offset, value);
    }

    fn load8(&self, table: &Table, offset: u64) -> u8 {
        Image.load8(table, offset)
    }

    fn publish(&self, table: &Table, range: Range<u64>, coherence: Coherence) {
        Image.publish(table, range, coherence);
    }

    fn cpu(&self) -> Cpu {
        Image.cpu()
    }
}

impl LocalCpu for Kernel {
    fn irq_save(&self) -> IrqState {
        Image.irq_save()
    }

    fn irq_restore(&self, state: IrqState) {
        Image.irq_restore(state);
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl TaskContext for Kernel {
    fn may_wait(&self) -> bool {
        Image.may_wait()
    }
}

impl Host for Kernel {
    fn current_cpu(&self) -> Option<Cpu> {
        Image.current_cpu()
    }
}
