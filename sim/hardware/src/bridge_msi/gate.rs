//! The bits outside of a controller's registers that let messages interrupt.

use super::{BridgeMsi, State};
use crate::bus::{AccessWidth, MmioDevice};
use crate::lock::lock;
use msi_types::pci::MsiGate;
use std::sync::Arc;

/// Offset of the pointer to the root port's first capability.
const POINTER: u64 = 0x34;
/// Offset of the first capability, for power management.
const POWER: u64 = 0x40;
/// Offset of the MSI capability.
pub(super) const MSI: u64 = 0x50;
/// MSI Enable, in the upper half of the capability's first word.
const ENABLE: u32 = 1 << 16;

impl BridgeMsi {
    /// Returns `true` if software has opened the gate.
    pub(super) fn is_open(&self, state: &State) -> bool {
        let bits = match self.gate {
            None => 0,
            Some(MsiGate::RootPort) => ENABLE,
            Some(MsiGate::Register { bits, .. }) => bits,
        };
        state.gate & bits == bits
    }

    /// Reads a register of the root port that a driver needs to find the gate.
    pub(super) fn root_port(&self, state: &State, offset: u64) -> Option<u32> {
        match offset {
            _ if self.gate != Some(MsiGate::RootPort) => None,
            POINTER => Some(0x40),
            POWER => Some(0x5001),
            MSI => Some(0x05 | state.gate & ENABLE),
            _ => None,
        }
    }
}

/// The page with the register that is the gate of a controller.
pub struct GlueRegister(pub Arc<BridgeMsi>);

impl GlueRegister {
    fn is_gate(&self, offset: u64) -> bool {
        matches!(self.0.gate, Some(MsiGate::Register { address, .. }) if address % 0x1000 == offset)
    }
}

impl MmioDevice for GlueRegister {
    fn read(&self, offset: u64, _: AccessWidth) -> u64 {
        if self.is_gate(offset) { lock(&self.0.state).gate.into() } else { 0 }
    }

    fn write(&self, offset: u64, _: AccessWidth, value: u64) {
        let state = &mut *lock(&self.0.state);
        if self.is_gate(offset) {
            state.gate = u32::try_from(value).unwrap_or(0);
            self.0.drive(state);
        }
    }
}

msi_types::debug_by!(GlueRegister as "GlueRegister", |it| {controller: it.0});
