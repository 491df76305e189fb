//! NVM Express, with a queue for each vector. Commands complete by interrupt.

use crate::driver::Driver;
use crate::report::{Outcome, Verdict, check};
use image_rt::nvme::Nvme;
use image_rt::pci::MappedRegion;

/// Number of I/O queues: one for each of at most eight CPUs.
pub(super) const IO_QUEUES: u16 = 8;

/// Returns the address of the code of the handler, whose instructions the runner counts.
pub(crate) fn handler_address() -> usize {
    let handle: fn(&Nvme<MappedRegion>, u16) = Driver::handle;
    (handle as *const ()).addr()
}

impl Driver for Nvme<MappedRegion> {
    fn vectors(&self) -> u16 {
        1 + IO_QUEUES
    }

    fn posts(&self) -> bool {
        false
    }

    fn start(&self) -> Outcome {
        Ok(Self::start(self)?)
    }

    /// On queue 0, identifies the controller. On queue *n*, reads sector *n*. Each sector contains
    /// its own number.
    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        if slot == 0 {
            self.identify()?;
            return Ok(true);
        }
        let number = self.read(slot, slot.into())?;
        check!(number == slot.into(), "sector {slot} contains number {number:#x}");
        Ok(true)
    }

    fn handle(&self, slot: u16) {
        self.complete(slot);
    }
}
