//! A redistributor's power state.

use super::LAG;
use gic_arch::gicr::{self, Waker};
use gic_arch::id;

/// Registers accessible while a redistributor sleeps: registers that identify it, registers that
/// wake it up, and the table base registers.
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
    /// `true` while the CPU's power domain is on. Without power, every access is an external abort.
    pub(crate) on: bool,
    /// `WAKER.ProcessorSleep`.
    pub(crate) sleep: bool,
    /// `WAKER.ChildrenAsleep`.
    pub(crate) asleep: bool,
    /// `true` if Secure firmware hides `WAKER`.
    pub(crate) waker_hidden: bool,
    /// `true` if accesses to `WAKER` crash the machine.
    pub(crate) waker_broken: bool,
    /// Number of reads of `WAKER` until the last write to it takes effect.
    lag: u32,
}

impl Power {
    /// Returns the state after reset.
    pub(super) fn new() -> Self {
        let (waker_hidden, waker_broken) = (false, false);
        Self { on: true, sleep: true, asleep: true, waker_hidden, waker_broken, lag: 0 }
    }

    pub(super) fn reset(&mut self) {
        (self.on, self.sleep, self.asleep, self.lag) = (true, true, true, 0);
    }

    /// Returns `true` if the redistributor sleeps, is falling asleep or is waking up.
    pub(super) fn is_asleep(&self) -> bool {
        self.sleep || self.asleep
    }

    /// Asserts that the register at `offset` may be accessed now.
    pub(super) fn check(&self, offset: u32) {
        assert!(self.on, "GICR + {offset:#x} is accessed without power");
        assert!(
            ALWAYS.contains(&offset) || !self.is_asleep(),
            "GICR + {offset:#x} is accessed while the redistributor sleeps"
        );
    }

    pub(super) fn read_waker(&mut self, stuck: bool) -> u32 {
        assert!(!self.waker_broken, "WAKER is read, which crashes firmware");
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
        assert!(!self.waker_broken, "WAKER is written, which crashes firmware");
        if !self.waker_hidden {
            self.sleep = value.processor_sleep();
            self.lag = LAG;
        }
    }
}
