//! The bits outside of a controller's registers that let messages interrupt.

use msi_types::pci::MsiGate;

/// Offset of the pointer to the root port's first capability.
const POINTER: u64 = 0x34;
/// Offset of the first capability, for power management.
const POWER: u64 = 0x40;
/// Offset of the MSI capability.
pub(super) const MSI: u64 = 0x50;
/// MSI Enable, in the upper half of the capability's first word.
const ENABLE: u32 = 1 << 16;

/// Returns `true` if the register with the gate has this value once software has opened the gate.
pub(super) fn is_open(gate: Option<MsiGate>, value: u32) -> bool {
    let bits = match gate {
        None => 0,
        Some(MsiGate::RootPort) => ENABLE,
        Some(MsiGate::Register { bits, .. }) => bits,
    };
    value & bits == bits
}

/// Reads a register of the root port that a driver needs to find the gate, whose register has this
/// value.
pub(super) fn root_port(gate: Option<MsiGate>, value: u32, offset: u64) -> Option<u32> {
    match offset {
        _ if gate != Some(MsiGate::RootPort) => None,
        POINTER => Some(0x40),
        POWER => Some(0x5001),
        MSI => Some(0x05 | value & ENABLE),
        _ => None,
    }
}
