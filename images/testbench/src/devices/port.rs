//! PCI Express ports with hot-plug: "command completed" is an interrupt, and any write to Slot Control a command.

use crate::pci::{Ecam, Function};
use crate::report::Verdict;
use crate::rig::Device;
use irq_domain::pci::ConfigSpace;

const PCI_EXPRESS: u8 = 0x10;
const SLOT_CONTROL: u16 = 0x18;
const SLOT_STATUS: u16 = 0x1a;
/// Command Completed Interrupt Enable, Hot-Plug Interrupt Enable.
const ENABLES: u16 = 0x30;

/// The port. Its hot-plug events are its message 0.
pub(crate) struct Port {
    config: Ecam,
    capability: u16,
    vectors: u16,
}

impl Port {
    pub(crate) fn new(function: &Function, vectors: u16) -> Self {
        let capability = function.capability(PCI_EXPRESS).expect("a port is PCI Express");
        Self { config: function.config, capability, vectors }
    }
}

impl Device for Port {
    fn vectors(&self) -> u16 {
        self.vectors
    }

    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        if slot != 0 {
            return Ok(false);
        }
        let register = self.capability + SLOT_CONTROL;
        let control = self.config.read16(register) & !ENABLES;
        self.config.write16(register, control);
        self.config.write16(self.capability + SLOT_STATUS, 0xffff);
        self.config.write16(register, control | ENABLES);
        Ok(true)
    }
}
