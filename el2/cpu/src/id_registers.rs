//! ID registers as the guest sees them (DDI 0487, D19.2): the CPU's ID registers without the
//! features whose instructions or registers trap here or are not switched with a vCPU. The hidden
//! features are EL2, SVE, SME, MTE, pointer authentication, MPAM, AMU, RME, LS64, MOPS, tracing,
//! performance monitors and profiling, and everything that `HCRX_EL2` would have to enable. If WFI
//! traps, WFIT is hidden as well: QEMU 10.0 reports a trapped WFIT as WFI and does not provide the
//! register with its timeout (`wfit` in its `target/arm/tcg/op_helper.c`), so a WFIT would last
//! until the next interrupt.

use crate::sysreg::read_register;
use gic_arch::icc::SysRegEncoding;

/// `HCR_EL2.TWI`.
pub(crate) const WFI_TRAPS: u64 = 1 << 13;

/// Reads a register of group 3 (`HCR_EL2.TID3`). Returns `None` for other registers.
// Don't inline this: it would add instructions to the exits of other traps.
#[inline(never)]
pub(crate) fn read(encoding: SysRegEncoding) -> Option<u64> {
    let packed = encoding.packed();
    let (first, crm, op2) = (packed >> 7, packed >> 3 & 15, packed & 7);
    // Checks that Op0 = 3, Op1 = 0 and CRn = 0.
    if first != 3 << 7 || !(1..=7).contains(&crm) {
        return None;
    }
    Some(physical(crm, op2) & shown(crm, op2))
}

/// Returns a mask of the fields that the guest sees.
fn shown(crm: u16, op2: u16) -> u64 {
    /// Returns the mask of the 4-bit field that starts at bit `bit`.
    const fn field(bit: u32) -> u64 {
        0xf << bit
    }
    match (crm, op2) {
        // ID_AA64PFR0_EL1
        (4, 0) => !(field(8) | field(32) | field(40) | field(44) | field(52)),
        // ID_AA64PFR1_EL1: BT, SSBS.
        (4, 1) => field(0) | field(4),
        // ID_AA64DFR0_EL1: DebugVer, and the numbers of breakpoints and watchpoints.
        (5, 0) => field(0) | field(12) | field(20) | field(28),
        // ID_AA64ISAR1_EL1
        (6, 1) => !(field(4) | field(8) | field(24) | field(28) | field(60)),
        // ID_AA64ISAR2_EL1: WFxT, RPRES, BC.
        (6, 2) if read_register!("hcr_el2") & WFI_TRAPS == 0 => field(0) | field(4) | field(20),
        (6, 2) => field(4) | field(20),
        // ID_PFR1_EL1: the hypervisor's exception level.
        (1, 1) => !field(12),
        // ID_DFR0_EL1: debug, without tracing and performance monitors.
        (1, 2) => field(0) | field(4) | field(8),
        // ID_AA64MMFR0_EL1 to ID_AA64MMFR2_EL1, ID_AA64ISAR0_EL1, and AArch32's.
        (7, 0..=2) | (6, 0) | (1..=3, _) => u64::MAX,
        _ => 0,
    }
}

macro_rules! physical {
    ($($crm:literal)*) => {
        /// Reads the CPU's register. Registers that do not exist read as zero.
        fn physical(crm: u16, op2: u16) -> u64 {
            match crm {
                $($crm => physical!($crm, op2, 0 1 2 3 4 5 6 7),)*
                _ => 0,
            }
        }
    };
    ($crm:literal, $op2:ident, $($number:literal)*) => {
        match $op2 {
            $($number => read_register!("S3_0_C0_C", $crm, "_", $number),)*
            _ => 0,
        }
    };
}

physical!(1 2 3 4 5 6 7);
