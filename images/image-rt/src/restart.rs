//! Restarts the image the way kexec starts another kernel: only the boot CPU is reset.

use crate::boot::Boot;
use crate::{cpu, monitor, read_register};
use core::arch::asm;
use core::hint::black_box;

unsafe extern "C" {
    static data_begin: u8;
    static image_file_end: u8;
}

/// Returns the number of times that the image was [restarted](again). The count is in `TPIDR_EL0`:
/// nothing else uses that register, and QEMU resets it to 0.
pub fn count() -> u64 {
    read_register!("tpidr_el0") & 0xffff
}

/// Returns the notes of the previous run, or 0.
pub fn notes() -> u64 {
    read_register!("tpidr_el0") >> 16
}

/// Switches MMU and data cache off in this system control register, and jumps to the image's start.
macro_rules! start_without_mmu {
    ($sctlr:literal, $devicetree:expr, $mark:expr) => {
        asm!(
            "msr daifset, #0xf",
            "dsb sy",
            concat!("mrs x9, ", $sctlr),
            "bic x9, x9, #1 << 0", // M
            "bic x9, x9, #1 << 2", // C
            concat!("msr ", $sctlr, ", x9"),
            "isb",
            "b image_header",
            in("x0") $devicetree,
            in("x1") $mark,
            options(noreturn),
        )
    };
}

/// Restarts the image on this CPU, with MMU and caches off, as the loader started it. Devices and
/// interrupt controllers keep their state. The next run gets 48 bits of notes.
///
/// # Safety
/// All other CPUs must be off. Devices must not write to memory that the image uses when it starts.
pub unsafe fn again(boot: Boot, notes: u64) -> ! {
    // The start code clears `.bss` but can't restore `.data`, so `.data` must be empty. We need
    // `black_box` because the compiler assumes that two symbols never have the same address.
    let [begin, end] = [&raw const data_begin, &raw const image_file_end].map(black_box);
    assert_eq!(begin, end, "the image has variables with nonzero initial values");
    let mark = boot.conduit.map_or(0, |_| monitor::MARK);
    // SAFETY: memory is identity-mapped, and no state of this run is used afterwards (for devices
    // and other CPUs, the caller guarantees this).
    unsafe {
        let kept = notes << 16 | (count() + 1);
        asm!("msr tpidr_el0, {}", in(reg) kept, options(nostack, preserves_flags));
        match cpu::level() {
            cpu::Level::El1 => start_without_mmu!("sctlr_el1", boot.devicetree, mark),
            cpu::Level::El2 => start_without_mmu!("sctlr_el2", boot.devicetree, mark),
        }
    }
}
