//! The CPU that executes this.

use core::arch::asm;

/// Most CPUs that an image uses.
pub const MAX_CPUS: usize = 8;

/// Reads a system register.
#[macro_export]
macro_rules! read_register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading this register has no side effect.
        unsafe {
            core::arch::asm!(
                concat!("mrs {}, ", $name),
                out(reg) value,
                options(nostack, preserves_flags),
            );
        }
        value
    }};
}

/// The exception level at which the image runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// EL1.
    El1,
    /// EL2.
    El2,
}

/// The exception level.
pub fn level() -> Level {
    if read_register!("CurrentEL") >> 2 & 3 == 2 { Level::El2 } else { Level::El1 }
}

/// Gives this CPU its number. At EL2, has it take physical interrupts there.
pub fn init(number: usize) {
    // SAFETY: the register holds nothing but the number.
    unsafe {
        if cfg!(feature = "el2") {
            asm!("msr tpidr_el2, {}", in(reg) number, options(nostack, preserves_flags));
        } else {
            asm!("msr tpidr_el1, {}", in(reg) number, options(nostack, preserves_flags));
        }
    }
    if level() == Level::El2 {
        // AMO, IMO, FMO; AArch64 at EL1.
        let hcr = 1_u64 << 31 | 1 << 5 | 1 << 4 | 1 << 3;
        // SAFETY: routes interrupts to the vectors of this image.
        unsafe { asm!("msr hcr_el2, {}", "isb", in(reg) hcr, options(nostack, preserves_flags)) };
    }
}

/// This CPU's number: 0 for the one that started.
#[inline]
pub fn current() -> usize {
    let number = if cfg!(feature = "el2") {
        read_register!("tpidr_el2")
    } else {
        read_register!("tpidr_el1")
    };
    number as usize
}

/// This CPU's affinity, as `MPIDR_EL1` has it.
pub fn mpidr() -> u64 {
    read_register!("mpidr_el1") & 0xff_00ff_ffff
}

/// Masks interrupts on this CPU, and says what was masked before.
#[inline]
pub fn irq_save() -> u64 {
    let state = read_register!("daif");
    // SAFETY: masking interrupts is always safe.
    unsafe { asm!("msr daifset, #2", options(nostack, preserves_flags)) };
    state
}

/// Are interrupts masked (DAIF.I)? So they are in their handlers, too.
#[inline]
#[must_use]
pub fn irq_is_masked() -> bool {
    read_register!("daif") & 1 << 7 != 0
}

/// Goes back to what [`irq_save`] found.
#[inline]
pub fn irq_restore(state: u64) {
    // SAFETY: the state was found on this CPU.
    unsafe { asm!("msr daif, {}", in(reg) state, options(nostack, preserves_flags)) };
}

/// Lets interrupts through.
#[inline]
pub fn irq_enable() {
    // SAFETY: the vectors are in place since the start code.
    unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
}

/// Waits for an interrupt, which may be masked.
pub fn wait_for_interrupt() {
    // SAFETY: waiting is always safe.
    unsafe { asm!("dsb sy", "wfi", options(nostack, preserves_flags)) };
}

/// Stores before it are visible to devices before anything after it.
#[inline]
pub fn publish_stores() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb st", options(nostack, preserves_flags)) };
}

/// Cleans the cache lines of a range to the point of coherency.
pub fn clean(start: usize, bytes: usize) {
    const LINE: usize = 16;
    let mut line = start & !(LINE - 1);
    while line < start + bytes {
        // SAFETY: cleaning changes nothing that a program sees.
        unsafe { asm!("dc cvac, {}", in(reg) line, options(nostack, preserves_flags)) };
        line += LINE;
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Ticks of the system counter.
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: reading the counter has no side effect; the barrier keeps it in program order.
    unsafe {
        let value: u64;
        asm!("isb", "mrs {}, cntvct_el0", out(reg) value, options(nostack, preserves_flags));
        value
    }
}

/// Ticks in a millisecond.
pub fn ticks_per_millisecond() -> u64 {
    read_register!("cntfrq_el0") / 1000
}

/// Waits for `done` at most so long. Says whether it came.
///
/// Time in which this CPU did not run counts for a millisecond at most. A host that stops the
/// machine stops what the machine waits for too.
pub fn wait_until(milliseconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let millisecond = ticks_per_millisecond();
    let mut left = milliseconds * millisecond;
    let mut seen = ticks();
    loop {
        if done() {
            return true;
        }
        let now = ticks();
        match left.checked_sub((now - seen).min(millisecond)) {
            Some(rest) => left = rest,
            None => return done(),
        }
        seen = now;
        core::hint::spin_loop();
    }
}

/// Has this CPU's virtual timer fire now, until it is stopped.
pub fn start_virtual_timer() {
    start_virtual_timer_in(0);
}

/// Has this CPU's virtual timer fire after so many milliseconds, until it is stopped or started
/// again.
pub fn start_virtual_timer_in(milliseconds: u64) {
    // SAFETY: the timer's interrupt has a handler or is held back.
    unsafe {
        asm!(
            "msr cntv_tval_el0, {ticks}",
            "msr cntv_ctl_el0, {enable}",
            "isb",
            ticks = in(reg) milliseconds * ticks_per_millisecond(),
            enable = in(reg) 1_u64,
            options(nostack, preserves_flags),
        );
    }
}

/// Stops this CPU's virtual timer.
pub fn stop_virtual_timer() {
    // SAFETY: a timer that does not fire has no effect.
    unsafe { asm!("msr cntv_ctl_el0, xzr", "isb", options(nostack, preserves_flags)) };
}
