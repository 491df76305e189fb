//! virtio over PCI.

use crate::driver::Driver;
use crate::report::{Outcome, Verdict, check};
use image_rt::pci::Function;
use image_rt::virtio::{self, QUEUE_SLOT, SLOTS};

/// A virtio entropy source.
pub(crate) struct Rng(virtio::Rng);

impl Rng {
    pub(crate) fn new(function: &Function) -> Self {
        Self(virtio::Rng::new(function.found()))
    }
}

impl Driver for Rng {
    fn vectors(&self) -> u16 {
        SLOTS
    }

    fn start(&self) -> Outcome {
        self.0.assign();
        Ok(())
    }

    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        if slot != QUEUE_SLOT {
            return Ok(false);
        }
        check!(self.0.fetch()? != [0; 16], "no entropy");
        Ok(true)
    }
}

/// A virtio disk.
pub(crate) struct Blk(virtio::Blk);

impl Blk {
    pub(crate) fn new(function: &Function) -> Self {
        Self(virtio::Blk::new(function.found()))
    }
}

impl Driver for Blk {
    fn vectors(&self) -> u16 {
        SLOTS
    }

    fn start(&self) -> Outcome {
        self.0.assign();
        Ok(())
    }

    /// Reads a sector that contains its own number.
    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        const SECTOR: u64 = 3;
        if slot != QUEUE_SLOT {
            return Ok(false);
        }
        let number = self.0.read(SECTOR as usize)?;
        check!(number == SECTOR, "sector {SECTOR} contains number {number}");
        Ok(true)
    }
}

/// A virtio network interface. Only its vectors are used.
pub(crate) struct Net;

impl Net {
    pub(crate) fn new(_: &Function) -> Self {
        Self
    }
}

impl Driver for Net {
    fn vectors(&self) -> u16 {
        3
    }

    fn fires(&self) -> bool {
        false
    }

    fn fire(&self, _: u16) -> Result<bool, Verdict> {
        Ok(false)
    }
}
