//! Bits outside of a controller's registers that let its messages interrupt.

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

/// A gate, and the page of its register if that is outside of the controller's registers.
pub(super) struct Gate<M> {
    pub(super) gate: MsiGate,
    page: Option<M>,
}

impl<M: Mmio> Gate<M> {
    pub(super) fn new(gate: MsiGate, platform: &impl Platform<Mmio = M>) -> Self {
        let page = match gate {
            MsiGate::RootPort => None,
            MsiGate::Register { address, .. } => {
                platform.map(PhysicalRegion { base: address / PAGE * PAGE, bytes: PAGE })
            }
        };
        Self { gate, page }
    }

    /// Opens the gate of the controller whose registers are `frame`, if its register can be found.
    pub(super) fn open(&self, frame: &M) {
        if let Some((registers, register, bits)) = self.register(frame) {
            registers.write32(register, registers.read32(register) | bits);
        }
    }

    pub(super) fn is_open(&self, frame: &M) -> bool {
        let is_set =
            |(registers, register, bits): (&M, _, _)| registers.read32(register) & bits == bits;
        self.register(frame).is_some_and(is_set)
    }

    fn register<'m>(&'m self, frame: &'m M) -> Option<(&'m M, u32, u32)> {
        match self.gate {
            MsiGate::RootPort => Some((frame, msi_capability(frame)?, ENABLE)),
            MsiGate::Register { address, bits } => {
                Some((self.page.as_ref()?, u32::try_from(address % PAGE).ok()?, bits))
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
