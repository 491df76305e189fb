//! Porting Doorbell to a kernel: everything that it asks of one. [`LocalCpu`] is for all of it,
//! [`Platform`] for the drivers. With LPIs they need `GicPlatform`, too, and the interrupt core
//! needs `Host`: `with_heap.rs`.
//!
//! Here the kernel is an image whose memory is identity-mapped and never moves. Where yours
//! differs, the comments say what the drivers count on.

#[cfg(feature = "heap")]
mod with_heap;

use crate::boot::DEVICE_MEMORY;
use crate::cpu;
use core::ptr::NonNull;
use gic_driver::sysreg::CpuRegisters;
use gic_driver::{IrqState, LocalCpu, PhysicalRegion, Platform, RawMmio, Wait};

/// The kernel. It has no state: the current CPU's number is in `TPIDR_EL<n>`, the heap and the page
/// tables are the image's.
#[derive(Clone, Copy, Debug)]
pub struct Kernel;

/// The CPU interface's registers of the CPU that asks.
pub fn registers() -> CpuRegisters {
    // SAFETY: `virt`'s CPUs with a GICv3 have its system registers, the image runs at EL1 or EL2,
    // and the monitor traps nothing. The vectors handle interrupts.
    unsafe { CpuRegisters::new() }
}

/// A bounded wait gives up after this many turns of a microsecond each.
const MOST_TURNS: u32 = 1_000_000;

impl LocalCpu for Kernel {
    /// DAIF. A kernel with a scheduler would also yield in `yield_now`.
    fn irq_save(&self) -> IrqState {
        IrqState::new(cpu::irq_save() as usize)
    }

    fn irq_restore(&self, state: IrqState) {
        cpu::irq_restore(state.get() as u64);
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl Platform for Kernel {
    type Mmio = RawMmio;

    /// Registers stay mapped for ever: drivers never unmap.
    fn map(&self, region: PhysicalRegion) -> Option<RawMmio> {
        let end = region.base.checked_add(region.bytes)?;
        let mapped =
            DEVICE_MEMORY.iter().any(|range| range.start <= region.base && end <= range.end);
        let base = NonNull::new(region.base as *mut u8).filter(|_| mapped)?;
        // SAFETY: the start code maps this as device memory, identically and for ever. The image
        // has no references into it, and drivers reach each device by one mapping.
        Some(unsafe { RawMmio::new(base, region.bytes as usize) })
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
