//! Creation of a handle to a CPU interface.

use super::setup::SavedCpuInterface;
use super::sgi_reach::SgiReach;
use super::{CpuInterface, CpuInterfaceConfig, EoiMode};
use crate::{GicError, SystemRegisters};
use core::marker::PhantomData;
use gic_arch::gicd;

impl<S: SystemRegisters, E: EoiMode> CpuInterface<S, E> {
    /// Enables the CPU interface: sets up system register access, the priority mask, the binary
    /// point and the EOI mode, and enables Group 1. Clears the active priorities, so that
    /// interrupts that other software left active no longer block others. The CPU's redistributor
    /// must be awake.
    ///
    /// # Errors
    /// [`GicError::NoSystemRegisters`] if a higher exception level denies access to the registers.
    pub fn enable(registers: S, config: CpuInterfaceConfig) -> Result<Self, GicError> {
        let CpuInterfaceConfig { mask, binary_point } = config;
        SavedCpuInterface { mask, binary_point, eoi_mode: E::SPLIT }.restore(&registers)?;
        Ok(Self::new(registers))
    }

    /// Creates a handle to a CPU interface that was enabled with the same EOI mode. Accesses no
    /// registers.
    pub const fn new(registers: S) -> Self {
        Self { registers, limit: SgiReach::UNLIMITED, mode: PhantomData }
    }

    /// Makes the handle also refuse SGIs that this distributor cannot forward.
    pub fn limited_by(self, distributor: gicd::Typer) -> Self {
        Self { limit: self.limit.limited_by(SgiReach::of_distributor(distributor)), ..self }
    }
}
