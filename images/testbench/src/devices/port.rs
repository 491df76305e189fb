//! PCI Express ports. On a hot-plug port, every write to Slot Control is a command, whose
//! completion raises an interrupt.

use crate::driver::Driver;
use crate::report::Verdict;
use alloc::sync::Arc;
use image_rt::pci::Function;
use irq_domain::pci::ConfigSpace;

const PCI_EXPRESS: u8 = 0x10;
const SLOT_CONTROL: u16 = 0x18;
const SLOT_STATUS: u16 = 0x1a;
/// Command Completed Interrupt Enable, Hot-Plug Interrupt Enable.
const ENABLES: u16 = 0x30;

/// A PCI Express port. Message 0 reports its hot-plug events.
pub(crate) struct Port {
    config: Arc<dyn ConfigSpace>,
    capability: u16,
    vectors: u16,
}

impl Port {
    /// Creates the driver of a port with one message, or with a second one that would report
    /// errors.
    pub(crate) fn new(function: &Function, vectors: u16) -> Self {
        let capability = function.capability(PCI_EXPRESS).expect("a port is PCI Express");
        Self { config: function.config.clone(), capability, vectors }
    }
}

impl Driver for Port {
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
        // Clear only bits that are set. If other bits are written, QEMU's port treats the write as
        // a mistake and restores the status.
        let status = self.config.read16(self.capability + SLOT_STATUS);
        self.config.write16(self.capability + SLOT_STATUS, status);
        self.config.write16(register, control | ENABLES);
        Ok(true)
    }
}
