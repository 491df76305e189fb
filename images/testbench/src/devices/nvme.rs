//! NVM Express, with a queue for each vector. Commands complete by interrupt.

use crate::driver::Driver;
use crate::report::{Outcome, Verdict, check};
use image_rt::nvme;
use image_rt::pci::{Bar, Function};

/// Number of I/O queues: one for each of at most eight CPUs.
const IO_QUEUES: u16 = 8;

/// An NVMe controller.
pub(crate) struct Nvme(nvme::Nvme<Bar>);

impl Nvme {
    pub(crate) fn new(function: &Function) -> Self {
        Self(nvme::Nvme::new(function.bar(0), IO_QUEUES))
    }
}

impl Driver for Nvme {
    fn vectors(&self) -> u16 {
        1 + IO_QUEUES
    }

    fn posts(&self) -> bool {
        false
    }

    fn start(&self) -> Outcome {
        Ok(self.0.start()?)
    }

    /// On queue 0, identifies the controller. On queue *n*, reads sector *n*. Each sector contains
    /// its own number.
    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        if slot == 0 {
            self.0.identify()?;
            return Ok(true);
        }
        let number = self.0.read(slot, slot.into())?;
        check!(number == slot.into(), "sector {slot} contains number {number:#x}");
        Ok(true)
    }

    fn handler_address(&self) -> Option<usize> {
        let handle: fn(&Self, u16) = <Self as Driver>::handle;
        Some((handle as *const ()).addr())
    }

    fn handle(&self, slot: u16) {
        self.0.complete(slot);
    }
}
