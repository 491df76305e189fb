//! virtio over PCI.

use crate::driver::Driver;
use crate::report::{Outcome, Verdict, check};
use image_rt::virtio::{Blk, QUEUE_SLOT, Rng, SLOTS};

impl Driver for Rng {
    fn vectors(&self) -> u16 {
        SLOTS
    }

    fn start(&self) -> Outcome {
        self.assign();
        Ok(())
    }

    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        if slot != QUEUE_SLOT {
            return Ok(false);
        }
        check!(self.fetch()? != [0; 16], "no entropy");
        Ok(true)
    }
}

impl Driver for Blk {
    fn vectors(&self) -> u16 {
        SLOTS
    }

    fn start(&self) -> Outcome {
        self.assign();
        Ok(())
    }

    /// Reads a sector that contains its own number.
    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        const SECTOR: u64 = 3;
        if slot != QUEUE_SLOT {
            return Ok(false);
        }
        let number = self.read(SECTOR as usize)?;
        check!(number == SECTOR, "sector {SECTOR} contains number {number}");
        Ok(true)
    }
}
