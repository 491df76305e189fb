//! A vCPU's breakpoints, watchpoints and single step (DDI 0487, D2). Each access to a debug
//! register traps, so storing a vCPU's registers costs nothing. A CPU loads the breakpoints and
//! watchpoints only of vCPUs that have enabled them.
//!
//! The debug communications channel and the claim tags read as zero, and ignore writes.

use crate::syndrome::RegisterAccess;
use crate::sysreg::{read_register, write_registers};
use core::arch::asm;

/// Number of breakpoints, and of watchpoints, that the architecture allows.
const LIMIT: usize = 16;
/// `MDSCR_EL1`: SS, TDCC, KDE and MDE. We leave out the bits for an external debugger.
const CONTROL: u64 = SINGLE_STEP | 1 << 12 | 1 << 13 | MONITORS;
const SINGLE_STEP: u64 = 1;
const MONITORS: u64 = 1 << 15;

/// A vCPU's debug registers.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Debug {
    /// `MDSCR_EL1`.
    control: u64,
    /// `OSLSR_EL1.OSLK`: the OS lock is locked, which disables all debug exceptions but BRK's.
    is_locked: bool,
    /// `DBGBVR<n>_EL1`, `DBGBCR<n>_EL1`, `DBGWVR<n>_EL1` and `DBGWCR<n>_EL1`.
    points: [[u64; LIMIT]; 4],
}

/// A debug register that a vCPU has.
enum Register {
    Control,
    /// `OSLAR_EL1`.
    Lock,
    /// `OSLSR_EL1`.
    LockStatus,
    /// Indices in [`Debug::points`].
    Point(usize, usize),
    /// Any other register.
    Absent,
}

impl Debug {
    /// Returns the state after reset, in which the OS lock is locked.
    pub(crate) const fn reset() -> Self {
        Self { control: 0, is_locked: true, points: [[0; LIMIT]; 4] }
    }

    /// Handles a read. Returns `None` if the register is undefined.
    pub(crate) fn read(&self, access: RegisterAccess) -> Option<u64> {
        /// `OSLSR_EL1.OSLM`: the OS lock is implemented.
        const IMPLEMENTED: u64 = 1 << 3;
        Some(match Register::of(access)? {
            Register::Control => self.control,
            Register::LockStatus => IMPLEMENTED | u64::from(self.is_locked) << 1,
            Register::Point(kind, number) => self.points[kind][number],
            Register::Lock | Register::Absent => 0,
        })
    }

    /// Handles a write by the vCPU that is loaded on this CPU. Returns `None` if the register is
    /// undefined.
    pub(crate) fn write(&mut self, access: RegisterAccess, value: u64) -> Option<()> {
        match Register::of(access)? {
            Register::Control => self.control = value & CONTROL,
            Register::Lock => self.is_locked = value & 1 != 0,
            Register::Point(kind, number) => self.points[kind][number] = value,
            Register::LockStatus | Register::Absent => return Some(()),
        }
        self.load();
        Some(())
    }

    /// Loads the registers into this CPU.
    // Don't inline this: it would add instructions to the exits of other traps.
    #[inline(never)]
    pub(crate) fn load(&self) {
        let control = if self.is_locked { 0 } else { self.control };
        // SAFETY: EL2 takes no debug exceptions (`MDCR_EL2.TDE` is clear), so these registers
        // affect only the guest.
        unsafe {
            write_registers! { "mdscr_el1": control }
        }
        if control & MONITORS != 0 {
            let [break_values, break_controls, watch_values, watch_controls] = &self.points;
            let [breakpoints, watchpoints] = counts();
            load_breakpoints(breakpoints, break_values, break_controls);
            load_watchpoints(watchpoints, watch_values, watch_controls);
        }
    }
}

impl Register {
    fn of(access: RegisterAccess) -> Option<Self> {
        let packed = access.encoding.packed();
        // Op1, CRn, CRm and Op2.
        let fields = (packed >> 11 & 7, packed >> 7 & 15, packed >> 3 & 15, packed & 7);
        Some(match fields {
            (0, 0, 2, 2) => Self::Control,
            (0, 1, 0, 4) => Self::Lock,
            (0, 1, 1, 4) => Self::LockStatus,
            (0, 0, number, kind @ 4..=7) => {
                let (kind, number) = (usize::from(kind - 4), usize::from(number));
                if number >= counts()[kind / 2] {
                    return None;
                }
                Self::Point(kind, number)
            }
            _ => Self::Absent,
        })
    }
}

/// Returns the CPU's numbers of breakpoints and watchpoints.
fn counts() -> [usize; 2] {
    let features = read_register!("id_aa64dfr0_el1");
    [12, 20].map(|field| (features >> field & 15) as usize + 1)
}

macro_rules! points {
    ($name:ident, $value:literal, $control:literal, $($number:literal)*) => {
        /// Loads the first `count` pairs.
        fn $name(count: usize, values: &[u64; LIMIT], controls: &[u64; LIMIT]) {
            $(if $number < count {
                // SAFETY: as in `load`.
                unsafe {
                    asm!(
                        concat!("msr ", $value, $number, "_el1, {}"),
                        concat!("msr ", $control, $number, "_el1, {}"),
                        in(reg) values[$number],
                        in(reg) controls[$number],
                        options(nostack, preserves_flags),
                    );
                }
            })*
        }
    };
}

points!(load_breakpoints, "dbgbvr", "dbgbcr", 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
points!(load_watchpoints, "dbgwvr", "dbgwcr", 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);

/// Unlocks this CPU's own OS lock, which the vCPUs do not see.
pub(crate) fn prepare_cpu() {
    // SAFETY: as in `load`; without vCPUs, no breakpoint is enabled.
    unsafe {
        asm!("msr mdscr_el1, xzr", "msr oslar_el1, xzr", options(nostack, preserves_flags));
    }
}
