//! Bits outside of a controller's registers that let its messages interrupt.

use super::BridgeMsi;
use crate::{Mmio, PhysicalRegion, Platform};
use msi_types::pci::MsiGate;

/// Size of the page that is mapped for a register.
const PAGE: u64 = 0x1000;
/// Offset of the pointer to a function's first capability.
const CAPABILITIES: u32 = 0x34;
/// Offset of the first possible capability.
const FIRST: u32 = 0x40;
/// Maximum number of capabilities in the 192 bytes that remain.
const MOST: usize = 48;
/// Identifier of the MSI capability.
const MSI: u32 = 0x05;
/// MSI Enable in the first word of the capability.
const ENABLE: u32 = 1 << 16;

/// Returns the page of a gate's register.
pub(super) fn page(gate: Option<MsiGate>) -> Option<PhysicalRegion> {
    let MsiGate::Register { address, .. } = gate? else { return None };
    Some(PhysicalRegion { base: address / PAGE * PAGE, bytes: PAGE })
}

impl<P: Platform> BridgeMsi<P> {
    /// Sets the [gate](super::BridgeMsiConfig::with_gate) again. A kernel that enumerates a bus
    /// clears MSI Enable of its root port.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    pub fn open(&self) {
        self.state.with(&*self.platform, |_| {
            if let Some((frame, register, bits)) = self.gate() {
                frame.write32(register, frame.read32(register) | bits);
            }
        });
    }

    /// Returns `true` if messages can interrupt.
    pub fn is_open(&self) -> bool {
        let is_set =
            |(frame, register, bits): (&P::Mmio, _, _)| frame.read32(register) & bits == bits;
        self.config.gate.is_none() || self.gate().is_some_and(is_set)
    }

    fn gate(&self) -> Option<(&P::Mmio, u32, u32)> {
        match self.config.gate? {
            MsiGate::RootPort => Some((&self.frame, msi_capability(&self.frame)?, ENABLE)),
            MsiGate::Register { address, bits } => {
                Some((self.glue.as_ref()?, u32::try_from(address % PAGE).ok()?, bits))
            }
        }
    }
}

/// Returns the offset of the MSI capability in the root port's configuration space, with which the
/// registers begin.
fn msi_capability(frame: &impl Mmio) -> Option<u32> {
    let next = |at: &u32| (*at >= FIRST).then(|| frame.read32(*at) >> 8 & 0xfc);
    let first = frame.read32(CAPABILITIES) & 0xfc;
    let mut places = core::iter::successors(Some(first), next).take(MOST);
    places.find(|at| *at >= FIRST && frame.read32(*at) & 0xff == MSI)
}
