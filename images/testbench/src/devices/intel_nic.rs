//! Intel network controllers. Software can set the interrupt causes of these cards.

use crate::driver::Driver;
use crate::report::{Outcome, Verdict};
use image_rt::pci::{Bar, Function};
use irq_domain::pci::TableMemory;

/// Intel 82574, with five causes that have a vector each.
pub(crate) struct E1000e(Bar);

const ICR: u64 = 0xc0;
const ICS: u64 = 0xc8;
const IMS: u64 = 0xd0;
const IVAR: u64 = 0xe4;
const FIRST_CAUSE: u16 = 20;
const E1000E_VECTORS: u16 = 5;

impl E1000e {
    pub(crate) fn new(function: &Function) -> Self {
        Self(function.bar(0))
    }
}

impl Driver for E1000e {
    fn vectors(&self) -> u16 {
        E1000E_VECTORS
    }

    /// QEMU 7.2 and 10.0 repeat the message when the moderation interval ends, even if the cause
    /// was cleared. The interval is at least 128 µs (qemu-devel, "Only send delayed msix interrupts
    /// that have a cause", May 2025).
    fn repeats(&self) -> bool {
        true
    }

    fn start(&self) -> Outcome {
        // Map queue causes to vectors 0 to 3, and all others to vector 4. Bit 3 of each field is
        // the valid bit.
        let map = (0..u32::from(E1000E_VECTORS)).fold(1 << 31, |map, n| map | (8 | n) << (4 * n));
        self.0.write32(IVAR, map);
        self.0.write32(IMS, 0x1f << FIRST_CAUSE);
        Ok(())
    }

    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        self.0.write32(ICS, 1 << (FIRST_CAUSE + slot));
        Ok(true)
    }

    fn handle(&self, slot: u16) {
        self.0.write32(ICR, 1 << (FIRST_CAUSE + slot));
    }
}

/// Intel 82576, with one extended cause per vector.
pub(crate) struct Igb(Bar);

const GPIE: u64 = 0x1514;
const EICS: u64 = 0x1520;
const EIMS: u64 = 0x1524;
const EICR: u64 = 0x1580;
const IGB_VECTORS: u16 = 10;

impl Igb {
    pub(crate) fn new(function: &Function) -> Self {
        Self(function.bar(0))
    }
}

impl Driver for Igb {
    fn vectors(&self) -> u16 {
        IGB_VECTORS
    }

    fn start(&self) -> Outcome {
        self.0.write32(GPIE, 0x10);
        self.0.write32(EIMS, 0x3ff);
        Ok(())
    }

    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        self.0.write32(EICS, 1 << slot);
        Ok(true)
    }

    fn handle(&self, slot: u16) {
        self.0.write32(EICR, 1 << slot);
    }
}
