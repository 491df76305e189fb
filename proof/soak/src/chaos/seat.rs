//! A vCPU between rounds.

use crate::guest::FIRST_LPI;
use doorbell_test_support::guest::{Half, Interface};
use gic_arch::icc;

/// INTID of the first SPI.
const FIRST_SPI: u32 = 32;

/// A vCPU that doesn't run, and the interrupts that its guest has acknowledged but not ended.
pub(crate) struct Seat {
    pub(super) cpu: usize,
    pub(super) vcpu: Half,
    pub(super) running: Vec<(usize, u32)>,
}

impl Seat {
    pub(crate) fn new((cpu, vcpu): (usize, Half)) -> Self {
        Self { cpu, vcpu, running: Vec::new() }
    }

    /// Enables the CPU interface.
    pub(crate) fn start(&mut self, is_non_secure: bool) {
        self.vcpu.write_sysreg(icc::PMR.encoding(), 0xff).unwrap();
        self.vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1).unwrap();
        if !is_non_secure {
            self.vcpu.write_sysreg(icc::IGRPEN0.encoding(), 1).unwrap();
        }
        self.vcpu.leave_guest();
    }

    /// Returns the SPIs that the guest has acknowledged but not ended.
    pub(super) fn spis(&self) -> impl Iterator<Item = u32> {
        let intids = self.running.iter().map(|(_, intid)| *intid);
        intids.filter(|intid| (FIRST_SPI..FIRST_LPI).contains(intid))
    }
}
