//! Example port of Doorbell to a kernel, with every trait that Doorbell requires. All of Doorbell
//! needs [`LocalCpu`], and the drivers need [`Platform`]. With LPIs, the drivers also need
//! `GicPlatform`, and the interrupt core needs `Host`; see `with_heap.rs`.
//!
//! Our memory is identity-mapped and never moves. If yours isn't, the comments tell you what the
//! drivers rely on.

#[cfg(feature = "heap")]
mod with_heap;

use crate::boot::DEVICE_MEMORY;
use crate::cpu;
use core::ptr::NonNull;
use gic_driver::sysreg::CpuRegisters;
use gic_driver::{IrqState, LocalCpu, PhysicalRegion, Platform, RawMmio, Wait};

/// The kernel. It is stateless: the CPU number is in `TPIDR_EL<n>`, and the heap and the page
/// tables belong to the image.
#[derive(Clone, Copy, Debug)]
pub struct Kernel;

/// Returns the CPU interface registers of the calling CPU.
pub fn registers() -> CpuRegisters {
    // SAFETY: CPUs of `virt` with a GICv3 have its system registers, the image runs at EL1 or EL2,
    // and the monitor traps nothing. The vectors handle interrupts.
    unsafe { CpuRegisters::new() }
}

/// Number of one-microsecond calls of `wait` after which a driver gives up.
const MOST_TURNS: u32 = 1_000_000;

impl LocalCpu for Kernel {
    /// Uses DAIF. In `yield_now`, a kernel with a scheduler should yield.
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

    /// Registers stay mapped forever: drivers never unmap them.
    fn map(&self, region: PhysicalRegion) -> Option<RawMmio> {
        let end = region.base.checked_add(region.bytes)?;
        let mapped =
            DEVICE_MEMORY.iter().any(|range| range.start <= region.base && end <= range.end);
        let base = NonNull::new(region.base as *mut u8).filter(|_| mapped)?;
        // SAFETY: the start code permanently maps this as device memory, identity-mapped. The image
        // has no references into it, and drivers access each device through one mapping.
        Some(unsafe { RawMmio::new(base, region.bytes as usize) })
    }

    /// Waits about a second in total. The first calls return immediately, because most hardware is
    /// ready by then.
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
