//! Operations on the calling CPU.

use core::arch::asm;

/// Maximum number of CPUs that an image uses.
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

/// Returns the exception level at which the image runs.
pub fn level() -> Level {
    if read_register!("CurrentEL") >> 2 & 3 == 2 { Level::El2 } else { Level::El1 }
}

/// Sets the number of this CPU. At EL2, also routes physical interrupts to EL2.
pub fn init(number: usize) {
    // SAFETY: no other code uses the register.
    unsafe {
        if cfg!(feature = "el2") {
            asm!("msr tpidr_el2, {}", in(reg) number, options(nostack, preserves_flags));
        } else {
            asm!("msr tpidr_el1, {}", in(reg) number, options(nostack, preserves_flags));
        }
    }
    if level() == Level::El2 {
        // `HCR_EL2`: AMO, IMO and FMO are set, and EL1 is AArch64.
        let hcr = 1_u64 << 31 | 1 << 5 | 1 << 4 | 1 << 3;
        // SAFETY: the write only routes interrupts to the vectors of this image.
        unsafe { asm!("msr hcr_el2, {}", "isb", in(reg) hcr, options(nostack, preserves_flags)) };
    }
}

/// Returns this CPU's number. The boot CPU is 0.
#[inline]
pub fn current() -> usize {
    let number = if cfg!(feature = "el2") {
        read_register!("tpidr_el2")
    } else {
        read_register!("tpidr_el1")
    };
    number as usize
}

/// Returns the affinity of this CPU in the layout of `MPIDR_EL1`.
pub fn mpidr() -> u64 {
    read_register!("mpidr_el1") & 0xff_00ff_ffff
}

/// Masks interrupts on this CPU. Returns the previous state.
#[inline]
pub fn irq_save() -> u64 {
    let state = read_register!("daif");
    // SAFETY: masking interrupts is always safe.
    unsafe { asm!("msr daifset, #2", options(nostack, preserves_flags)) };
    state
}

/// Returns `true` if interrupts are masked (DAIF.I). Interrupts are also masked in interrupt
/// handlers.
#[inline]
#[must_use]
pub fn irq_is_masked() -> bool {
    read_register!("daif") & 1 << 7 != 0
}

/// Restores the state that [`irq_save`] returned.
#[inline]
pub fn irq_restore(state: u64) {
    // SAFETY: the state was saved on this CPU.
    unsafe { asm!("msr daif, {}", in(reg) state, options(nostack, preserves_flags)) };
}

/// Unmasks interrupts.
#[inline]
pub fn irq_enable() {
    // SAFETY: the start code has set up the vectors.
    unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
}

/// Waits until an interrupt is pending, even if it is masked.
pub fn wait_for_interrupt() {
    // SAFETY: waiting has no effect on memory.
    unsafe { asm!("dsb sy", "wfi", options(nostack, preserves_flags)) };
}

/// Makes earlier stores visible to devices before any later access.
#[inline]
pub fn publish_stores() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb st", options(nostack, preserves_flags)) };
}

/// Cleans the cache lines of a range to the point of coherency.
pub fn clean(start: usize, bytes: usize) {
    maintain(start, bytes, |line| {
        // SAFETY: cleaning does not change the contents of memory as the program sees it.
        unsafe { asm!("dc cvac, {}", in(reg) line, options(nostack, preserves_flags)) };
    });
}

/// Makes a device's stores to a range visible to later loads, even if the device bypasses the
/// caches. Cleans the cache lines first, so that no store of the program is lost.
pub fn observe(start: usize, bytes: usize) {
    maintain(start, bytes, |line| {
        // SAFETY: as above, unless a device has stored to memory.
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags)) };
    });
}

fn maintain(start: usize, bytes: usize, each: impl Fn(usize)) {
    const LINE: usize = 16;
    let mut line = start & !(LINE - 1);
    while line < start + bytes {
        each(line);
        line += LINE;
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Returns the value of the system counter.
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: reading the counter has no side effect; the barrier keeps it in program order.
    unsafe {
        let value: u64;
        asm!("isb", "mrs {}, cntvct_el0", out(reg) value, options(nostack, preserves_flags));
        value
    }
}

/// Returns the number of ticks per millisecond.
pub fn ticks_per_millisecond() -> u64 {
    read_register!("cntfrq_el0") / 1000
}

/// Waits up to `milliseconds` for `done` to return `true`. Returns `false` on timeout.
///
/// A period in which this CPU didn't run counts as at most one millisecond, because a host that
/// pauses the machine also pauses the device that the machine waits for.
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

/// Makes this CPU's virtual timer fire immediately, until it is stopped.
pub fn start_virtual_timer() {
    start_virtual_timer_in(0);
}

/// Makes this CPU's virtual timer fire after `milliseconds`, until it is stopped or restarted.
pub fn start_virtual_timer_in(milliseconds: u64) {
    start_virtual_timer_at(ticks() + milliseconds * ticks_per_millisecond());
}

/// Defines the functions of a timer, given its name and the prefix of its registers.
macro_rules! timer {
    ($name:literal, $prefix:literal, $start_at:ident, $stop:ident) => {
        #[doc = concat!("Makes this CPU's ", $name, " fire when the counter reaches `deadline`,")]
        /// until it is stopped or restarted.
        pub fn $start_at(deadline: u64) {
            // SAFETY: the timer's interrupt has a handler or is masked.
            unsafe {
                asm!(
                    concat!("msr ", $prefix, "_cval_el0, {deadline}"),
                    concat!("msr ", $prefix, "_ctl_el0, {enable}"),
                    "isb",
                    deadline = in(reg) deadline,
                    enable = in(reg) 1_u64,
                    options(nostack, preserves_flags),
                );
            }
        }

        #[doc = concat!("Stops this CPU's ", $name, ".")]
        pub fn $stop() {
            // SAFETY: a timer that does not fire has no effect.
            unsafe {
                asm!(
                    concat!("msr ", $prefix, "_ctl_el0, xzr"),
                    "isb",
                    options(nostack, preserves_flags),
                );
            }
        }
    };
}

timer!("virtual timer", "cntv", start_virtual_timer_at, stop_virtual_timer);
timer!("physical timer of EL1", "cntp", start_physical_timer_at, stop_physical_timer);
