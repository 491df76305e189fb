//! Workaround for Cavium errata 23154 and 38545.

use crate::{ExceptionLevel, SystemRegisters, barrier};
use gic_arch::icc::{self, SysRegEncoding};

/// Registers for a CPU with unsynchronized acknowledgments
/// ([`AcknowledgeNotSynchronised`](crate::errata::Erratum::AcknowledgeNotSynchronised)). The type
/// separates reads of `ICC_IAR1_EL1` from other accesses by NOPs, and reports an interrupt that did
/// not become active as spurious.
///
/// The number of NOPs is the same as in Linux (`gic_read_iar_cavium_thunderx`).
#[derive(Clone, Copy, Debug)]
pub struct SynchronisedAcknowledge<S>(S);

impl<S: SystemRegisters> SynchronisedAcknowledge<S> {
    /// Wraps the registers of a CPU with this erratum.
    pub const fn new(registers: S) -> Self {
        Self(registers)
    }

    /// Acknowledges an interrupt, or returns a spurious INTID if none became active. Checking a
    /// single active-priority register is enough, because these implementations have at most 32
    /// group priorities.
    fn acknowledge(&self) -> u64 {
        let before = self.0.read(icc::AP1R0);
        barrier::eight_nops();
        let intid = self.0.read_raw(icc::IAR1.encoding());
        barrier::eight_nops();
        barrier::complete();
        if self.0.read(icc::AP1R0) == before { SPURIOUS } else { intid }
    }
}

/// Special INTID: no pending interrupt (IHI 0069 §2.2.1).
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
