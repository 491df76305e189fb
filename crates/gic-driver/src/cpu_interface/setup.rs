//! Enables a CPU interface, both initially and after power loss.

use crate::{ExceptionLevel, GicError, SystemRegisters};
use gic_arch::Priority;
use gic_arch::icc::{self, Ctlr, Igrpen, SysReg};

/// CPU interface state that is lost on power-down, including the EOI mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SavedCpuInterface {
    pub(super) mask: Priority,
    pub(super) binary_point: u8,
    /// `ICC_CTLR_EL1.EOImode`.
    pub(super) eoi_mode: bool,
}

impl SavedCpuInterface {
    /// Enables the calling CPU's interface with the state that
    /// [`CpuInterface::save`](super::CpuInterface::save) read. Clears the active priorities, so
    /// that interrupts left active by other software can't block others. The CPU's redistributor
    /// must be awake.
    ///
    /// # Errors
    /// [`GicError::NoSystemRegisters`] if a higher exception level denies access to the registers.
    pub fn restore<S: SystemRegisters>(self, registers: &S) -> Result<(), GicError> {
        enable_system_registers(registers)?;
        let has_group_0 = shows_all_priorities(registers);
        registers.write(icc::PMR, u64::from(self.mask.get()));
        registers.write(icc::BPR1, u64::from(self.binary_point.min(7)));
        let control = registers
            .read(icc::CTLR)
            .with_cbpr(false)
            .with_pmhe(false)
            .with_eoi_mode(self.eoi_mode);
        registers.write(icc::CTLR, control);
        if has_group_0 {
            for active in active_priorities(control, &icc::AP0R) {
                registers.write(*active, 0);
            }
        }
        for active in active_priorities(control, &icc::AP1R) {
            registers.write(*active, 0);
        }
        registers.write(icc::IGRPEN1, Igrpen::new().with_enable(true));
        Ok(())
    }
}

/// Enables system register access. `ICC_SRE_EL2` must be written first: while its `SRE` is 0,
/// `ICC_SRE_EL1.SRE` is RAZ/WI (IHI 0069 §12.2, `ICC_SRE_EL1`). The `Enable` bit of `ICC_SRE_EL2`
/// lets EL1 access `ICC_SRE_EL1` without trapping.
fn enable_system_registers<S: SystemRegisters>(registers: &S) -> Result<(), GicError> {
    if registers.exception_level() == ExceptionLevel::El2 {
        let sre = registers.read(icc::SRE_EL2);
        registers.write(icc::SRE_EL2, sre.with_sre(true).with_enable(true));
        if !registers.read(icc::SRE_EL2).sre() {
            return Err(GicError::NoSystemRegisters);
        }
    }
    let sre = registers.read(icc::SRE);
    if !sre.sre() {
        registers.write(icc::SRE, sre.with_sre(true));
        if !registers.read(icc::SRE).sre() {
            return Err(GicError::NoSystemRegisters);
        }
    }
    Ok(())
}

/// Returns `true` if this software can use all priorities, and therefore Group 0: either the system
/// has only one security state, or EL3 lets this software use the group (`SCR_EL3.FIQ` = 0). A
/// Non-secure view would drop the mask's lowest implemented bit. Overwrites the mask.
pub(super) fn shows_all_priorities<S: SystemRegisters>(registers: &S) -> bool {
    let priority_bits = u32::from(registers.read(icc::CTLR).pri_bits_minus_one()) + 1;
    let lowest = 1_u8.checked_shl(8_u32.saturating_sub(priority_bits)).unwrap_or(1);
    registers.write(icc::PMR, u64::from(lowest));
    registers.read(icc::PMR).to_le_bytes()[0] != 0
}

/// Returns a group's active-priority registers that exist with the implemented number of priority
/// bits (IHI 0069 §12.2, `ICC_AP0R<n>_EL1`, `ICC_AP1R<n>_EL1`); accessing the others is UNDEFINED.
fn active_priorities(control: Ctlr, all: &[SysReg<u64>]) -> &[SysReg<u64>] {
    let count = match control.pri_bits_minus_one() {
        0..=4 => 1,
        5 => 2,
        _ => 4,
    };
    all.get(..count).unwrap_or(all)
}
