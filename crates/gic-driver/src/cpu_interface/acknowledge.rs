//! Cavium errata 23154 and 38545.

use crate::{ExceptionLevel, SystemRegisters, barrier};
use gic_arch::icc::{self, SysRegEncoding};

/// The registers of a CPU whose acknowledgments are not synchronized
/// ([`AcknowledgeNotSynchronised`](crate::errata::Erratum::AcknowledgeNotSynchronised)).
/// `ICC_IAR1_EL1` is read at a distance from other accesses, and an interrupt that did not become
/// active is reported as spurious.
///
/// The distances are taken from Linux (`gic_read_iar_cavium_thunderx`).
#[derive(Clone, Copy, Debug)]
pub struct SynchronisedAcknowledge<S>(S);

impl<S: SystemRegisters> SynchronisedAcknowledge<S> {
    /// Wraps the CPU's registers.
    pub const fn new(registers: S) -> Self {
        Self(registers)
    }

    /// Acknowledges an interrupt, or returns a spurious INTID if none became active. A single
    /// active-priority register suffices, because these implementations have at most 32 group
    /// priorities.
    fn acknowledge(&self) -> u64 {
        let before = self.0.read(icc::AP1R0);
        barrier::eight_nops();
        let intid = self.0.read_raw(icc::IAR1.encoding());
        barrier::eight_nops();
        barrier::complete();
        if self.0.read(icc::AP1R0) == before { SPURIOUS } else { intid }
    }
}

/// The INTID that stands for no interrupt (IHI 0069 §2.2.1).
const SPURIOUS: u64 = 1023;

impl<S: SystemRegisters> SystemRegisters for SynchronisedAcknowledge<S> {
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        if register == icc::IAR1.encoding() {
            self.acknowledge()
        } else {
            self.0.read_raw(register)
        }
    }

    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        self.0.write_raw(register, value);
    }

    fn exception_level(&self) -> ExceptionLevel {
        self.0.exception_level()
    }
}
