//! Checks that the machine does what its ID registers say, and that unusual loads and stores have
//! their effect.

use crate::machine::{self, GICD};
use crate::{exceptions, fixed, leaks};
use alloc::vec::Vec;
use core::arch::{asm, global_asm};
use doorbell_facts::{Fact, HostileFact};
use gic_arch::{gicd, gicr};
use image_rt::{cpu, power, println, read_register};

/// Milliseconds between two rounds, during which another guest on the CPU also runs its checks.
const PAUSE: u64 = 3;
/// An address without any device.
const ABSENT: u64 = 0x0b00_0000;

/// Returns `true` if the machine passes.
type Check = fn() -> bool;

const CHECKS: [(&str, Check); 6] = [
    ("fixed-devices", fixed::answer),
    ("indexed", has_indexed_transfers),
    ("big-endian", is_big_endian),
    ("performance-monitors", hides_performance_monitors),
    ("hypervisor-level", hides_hypervisor_level),
    ("breakpoint", breaks),
];

/// Runs all checks, and prints those that failed.
pub(crate) fn run(rounds: u64) -> ! {
    cpu::irq_save();
    exceptions::install();
    let mut failed = Vec::new();
    set_breakpoint();
    for _ in 0..rounds {
        failed.extend(CHECKS.iter().filter(|(_, check)| !check()).map(|(name, _)| *name));
        leaks::wait(PAUSE);
    }
    failed.sort_unstable();
    failed.dedup();
    let failed = failed.join(", ").into();
    println!("{}", Fact::from(HostileFact::Checked { rounds, failed }));
    power::system_off()
}

/// Reads `times` times where no device is: twice on each page, and then at a single address.
pub(crate) fn absent(times: u64) -> ! {
    cpu::irq_save();
    exceptions::install();
    for number in 0..2 * times {
        machine::read(ABSENT + 0x800 * number.min(times), 4);
    }
    power::system_off()
}

/// Stores and loads priorities of SGIs with an update of the base register.
fn has_indexed_transfers() -> bool {
    let first = machine::redistributor() + u64::from(gicr::SGI_BASE) + 0x400;
    let (mut base, loaded): (u64, u64);
    let before = exceptions::taken();
    // SAFETY: the SGIs stay disabled.
    unsafe {
        asm!(
            "strb {value:w}, [{base}], #1",
            "strb {value:w}, [{base}], #1",
            "strb wzr, [{base}, #1]!",
            "ldrsb {loaded}, [{base}, #-2]!",
            value = in(reg) 0xa0_u64,
            base = inout(reg) first => base,
            loaded = out(reg) loaded,
            options(nostack, preserves_flags),
        );
    }
    let stored = machine::read(first, 4);
    base -= first;
    exceptions::taken() == before && (base, loaded, stored) == (1, 0xa0_u64 | !0xff, 0xa0a0)
}

/// Reads a register of the distributor with `SCTLR_EL1.EE` set. The MMU is off in the meantime,
/// because it would read big-endian tables.
fn is_big_endian() -> bool {
    const EE: u64 = 1 << 25;
    const MMU_AND_CACHE: u64 = 1 << 2 | 1;
    let iidr = GICD + u64::from(gicd::IIDR.offset());
    let value: u64;
    let of_image = read_register!("sctlr_el1");
    // SAFETY: the image is identity-mapped, and accesses no other memory in the meantime.
    unsafe {
        asm!(
            "msr sctlr_el1, {big}",
            "isb",
            "ldr {value:w}, [{iidr}]",
            "msr sctlr_el1, {of_image}",
            "isb",
            big = in(reg) of_image & !MMU_AND_CACHE | EE,
            of_image = in(reg) of_image,
            iidr = in(reg) iidr,
            value = out(reg) value,
        );
    }
    let little = (machine::read(iidr, 4) as u32).swap_bytes();
    value == u64::from(little)
}

/// `ID_AA64DFR0_EL1.PMUVer` is zero, and the cycle counter is undefined.
fn hides_performance_monitors() -> bool {
    const PMCCNTR: u32 = 3 << 14 | 3 << 11 | 9 << 7 | 13 << 3;
    field(read_register!("id_aa64dfr0_el1")) == 0 && leaks::read(PMCCNTR).is_none()
}

/// `ID_AA64PFR0_EL1.EL2` is zero.
fn hides_hypervisor_level() -> bool {
    field(read_register!("id_aa64pfr0_el1")) == 0
}

/// Returns bits 11:8.
const fn field(register: u64) -> u64 {
    register >> 8 & 15
}

unsafe extern "C" {
    fn hostile_breakpoint();
}

/// Enables the first breakpoint, for EL1.
fn set_breakpoint() {
    /// `DBGBCR<n>_EL1`: all four bytes, at EL1, enabled.
    const CONTROL: u64 = 0xf << 5 | 1 << 1 | 1;
    /// `MDSCR_EL1`: KDE and MDE.
    const MONITORS: u64 = 1 << 13 | 1 << 15;
    // SAFETY: only `hostile_breakpoint` is at this address. Debug exceptions stay masked.
    unsafe {
        asm!(
            "msr oslar_el1, xzr",
            "msr dbgbvr0_el1, {address}",
            "msr dbgbcr0_el1, {control}",
            "msr mdscr_el1, {monitors}",
            "isb",
            address = in(reg) hostile_breakpoint as *const () as u64,
            control = in(reg) CONTROL,
            monitors = in(reg) MONITORS,
            options(nostack, preserves_flags),
        );
    }
}

/// Runs into the breakpoint. The exception handler skips the instruction there.
fn breaks() -> bool {
    let before = exceptions::taken();
    let is_kept = read_register!("dbgbvr0_el1") == hostile_breakpoint as *const () as u64;
    // SAFETY: changes no register but those of calls.
    unsafe {
        asm!("msr daifclr, #8", "bl hostile_breakpoint", "msr daifset, #8", clobber_abi("C"));
    }
    is_kept && exceptions::taken() == before + 1
}

global_asm!(
    ".section .text.hostile_breakpoint, \"ax\"",
    ".global hostile_breakpoint",
    "hostile_breakpoint:",
    "    nop",
    "    ret",
);
