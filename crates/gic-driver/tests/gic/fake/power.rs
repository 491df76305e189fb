//! The power state of a redistributor.

use super::LAG;
use gic_arch::gicr::{self, Waker};
use gic_arch::id;

/// Registers that a sleeping redistributor has: those that identify it and wake it, and the bases
/// of its tables.
const ALWAYS: [u32; 7] = [
    gicr::CTLR.offset(),
    gicr::IIDR.offset(),
    gicr::TYPER.offset(),
    gicr::WAKER.offset(),
    gicr::PROPBASER.offset(),
    gicr::PENDBASER.offset(),
    id::PIDR2.offset(),
];

#[derive(Debug)]
pub(crate) struct Power {
    /// Its CPU's power domain is on: without power every access is an external abort.
    pub(crate) on: bool,
    /// `WAKER.ProcessorSleep`.
    pub(crate) sleep: bool,
    /// `WAKER.ChildrenAsleep`.
    pub(crate) asleep: bool,
    /// Secure firmware keeps `WAKER`.
    pub(crate) waker_hidden: bool,
    /// Any access to `WAKER` ends the machine.
    pub(crate) waker_broken: bool,
    /// Number of reads of `WAKER` until the last write of it has taken effect.
    lag: u32,
}

impl Power {
    /// After reset.
    pub(super) fn new() -> Self {
        let (waker_hidden, waker_broken) = (false, false);
        Self { on: true, sleep: true, asleep: true, waker_hidden, waker_broken, lag: 0 }
    }

    pub(super) fn reset(&mut self) {
        (self.on, self.sleep, self.asleep, self.lag) = (true, true, true, 0);
    }

    /// Returns true if it sleeps, or is falling asleep or waking.
    pub(super) fn is_asleep(&self) -> bool {
        self.sleep || self.asleep
    }

    /// Checks that the register at `offset` can be accessed now.
    pub(super) fn check(&self, offset: u32) {
        assert!(self.on, "GICR + {offset:#x} is used without power");
        assert!(
            ALWAYS.contains(&offset) || !self.is_asleep(),
            "GICR + {offset:#x} is used while the redistributor sleeps"
        );
    }

    pub(super) fn read_waker(&mut self, stuck: bool) -> u32 {
        assert!(!self.waker_broken, "WAKER is read, which firmware does not survive");
        if self.waker_hidden {
            return 0;
        }
        if self.lag != 0 && !stuck {
            self.lag -= 1;
            if self.lag == 0 {
                self.asleep = self.sleep;
            }
        }
        Waker::new().with_processor_sleep(self.sleep).with_children_asleep(self.asleep).into()
    }

    pub(super) fn write_waker(&mut self, value: Waker) {
        assert!(!self.waker_broken, "WAKER is written, which firmware does not survive");
        if !self.waker_hidden {
            self.sleep = value.processor_sleep();
            self.lag = LAG;
        }
    }
}
