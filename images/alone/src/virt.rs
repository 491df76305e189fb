//! Everything else that a kernel on QEMU's `virt` needs: start code, timer, console, power-off, and
//! the services that the GIC drivers require. The MMU is off, so all memory is device memory.

use core::arch::{asm, global_asm};
use core::ptr::NonNull;
use gic_driver::{IrqState, LocalCpu, PhysicalRegion, Platform, RawMmio, Wait};

// Addresses from QEMU's devicetree.
pub(crate) const DISTRIBUTOR: u64 = 0x0800_0000;
pub(crate) const REDISTRIBUTORS: PhysicalRegion =
    PhysicalRegion { base: 0x080a_0000, bytes: 0xf6_0000 };
const CONSOLE: *mut u32 = 0x0900_0000 as *mut u32;

// Entry point for the loader. Compiled code requires a stack and access to the vector registers.
global_asm!(
    ".global _start",
    "_start: mov x0, #3 << 20",
    "msr cpacr_el1, x0",
    "isb",
    "adrp x0, stack_end",
    "add sp, x0, :lo12:stack_end",
    "bl main",
    "b {power_off}",
    ".bss",
    ".balign 16",
    ".space 65536",
    "stack_end:",
    power_off = sym power_off,
);

pub(crate) struct Kernel;

impl LocalCpu for Kernel {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0) // exceptions are always masked
    }
    fn irq_restore(&self, _: IrqState) {}
    fn yield_now(&self) {
        self.relax(); // a kernel with a scheduler must yield
    }
}

impl Platform for Kernel {
    type Mmio = RawMmio;

    fn map(&self, region: PhysicalRegion) -> Option<RawMmio> {
        let base = NonNull::new(region.base as *mut u8)?;
        // SAFETY: the region is device memory that only the driver uses.
        Some(unsafe { RawMmio::new(base, usize::try_from(region.bytes).ok()?) })
    }
    fn wait(&self, turn: u32) -> Wait {
        if turn < 10_000_000 { Wait::Again } else { Wait::GiveUp }
    }
}

/// Makes the virtual timer fire in 2^20 ticks of the counter.
pub(crate) fn start_timer() {
    // SAFETY: no other code uses the timer.
    unsafe {
        asm!("msr cntv_tval_el0, {}", "msr cntv_ctl_el0, {}", in(reg) 1_u64 << 20, in(reg) 1_u64);
    }
}

pub(crate) fn wait_for_interrupt() {
    // SAFETY: `wfi` has no effect on memory. A pending interrupt ends it even if masked.
    unsafe { asm!("wfi") };
}

pub(crate) fn print(text: &str) {
    // SAFETY: the UART's data register exists, and accepts any byte.
    text.bytes().for_each(|byte| unsafe { CONSOLE.write_volatile(byte.into()) });
}

/// Turns the machine off with PSCI's `SYSTEM_OFF`.
extern "C" fn power_off() -> ! {
    // SAFETY: the call does not return.
    unsafe { asm!("hvc #0", in("w0") 0x8400_0008_u32, options(noreturn)) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    print("panic\n");
    power_off()
}
