//! QEMU's educational device: one MSI, raised by a register write.

use crate::report::Verdict;
use crate::rig::Device;
use image_rt::pci::{Bar, Function};
use irq_domain::pci::TableMemory;

const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;

/// The device.
pub(crate) struct Edu(Bar);

impl Edu {
    pub(crate) fn new(function: &Function) -> Self {
        Self(function.bar(0))
    }
}

impl Device for Edu {
    fn vectors(&self) -> u16 {
        1
    }

    fn fire(&self, _: u16) -> Result<bool, Verdict> {
        self.0.write32(RAISE, 1);
        Ok(true)
    }

    fn handle(&self, _: u16) {
        self.0.write32(ACKNOWLEDGE, 1);
    }
}
