//! A vCPU between rounds.

use crate::guest::FIRST_LPI;
use crate::half::Half;
use gic_arch::icc::{self, SysRegEncoding};

/// INTID of the first SPI.
const FIRST_SPI: u32 = 32;

/// A vCPU that doesn't run, and the interrupts that its guest has acknowledged but not ended.
pub(crate) struct Seat {
    pub(crate) vcpu: Half,
    pub(super) running: Vec<(usize, u32)>,
}

/// The interrupts that a guest has acknowledged but not ended.
pub(crate) struct Running(Vec<(usize, u32)>);

impl Running {
    /// Continues on another machine's vCPU.
    pub(crate) fn join(self, vcpu: Half) -> Seat {
        Seat { vcpu, running: self.0 }
    }

    /// Returns the SPIs among the interrupts.
    pub(super) fn spis(&self) -> impl Iterator<Item = u32> {
        let intids = self.0.iter().map(|(_, intid)| *intid);
        intids.filter(|intid| (FIRST_SPI..FIRST_LPI).contains(intid))
    }
}

fn eoir(group: usize) -> SysRegEncoding {
    [icc::EOIR0.encoding(), icc::EOIR1.encoding()][group]
}

impl Seat {
    pub(crate) fn new(vcpu: Half) -> Self {
        Self { vcpu, running: Vec::new() }
    }

    /// Enables the CPU interface.
    pub(crate) fn start(&mut self, is_non_secure: bool) {
        self.vcpu.write_sysreg(icc::PMR.encoding(), 0xff);
        self.vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1);
        if !is_non_secure {
            self.vcpu.write_sysreg(icc::IGRPEN0.encoding(), 1);
        }
    }

    /// Separates the vCPU from the guest's state.
    pub(crate) fn split(self) -> (Half, Running) {
        (self.vcpu, Running(self.running))
    }

    pub(super) fn cpu(&self) -> usize {
        self.vcpu.cpu()
    }

    /// Ends all interrupts.
    pub(crate) fn end_all(&mut self) {
        while let Some((group, intid)) = self.running.pop() {
            self.vcpu.write_sysreg(eoir(group), intid.into());
        }
    }
}
