//! virtio over PCI.

use crate::driver::Driver;
use crate::report::{Outcome, Verdict, check};
use image_rt::virtio::{QUEUE_SLOT, Rng, SLOTS};

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
