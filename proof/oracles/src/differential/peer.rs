//! What the two machines have in common.

use super::access::{Access, GIC};
use super::acknowledge::Acknowledged;
use anyhow::Result;
use std::fmt;
use std::ops::Range;

/// A machine that carries out accesses.
pub trait Peer {
    /// Resets the machine and zeroes the memory that cases use.
    ///
    /// # Errors
    /// Returns an error if the machine has exited.
    fn reset(&mut self) -> Result<()>;

    /// Returns the machine's replies to the accesses, in order.
    ///
    /// # Errors
    /// Returns an error if the machine has exited.
    fn replies(&mut self, accesses: &mut dyn Iterator<Item = Access>) -> Result<Vec<PeerReply>>;

    /// Makes each of these CPUs acknowledge interrupts until none is pending.
    ///
    /// # Errors
    /// Returns an error if the machine has exited, or if its CPUs are not running.
    fn acknowledge(&mut self, cpus: Range<u16>) -> Result<Vec<Vec<Acknowledged>>>;

    /// Returns the CPU interrupt inputs that are asserted, among those that are watched.
    fn asserted(&mut self) -> Asserted;

    /// Returns which inputs the machine watches.
    fn watch(&self) -> Watch;
}

/// A machine's reply to an access, in QEMU's form, and the inputs that are asserted afterwards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerReply {
    /// Text of the reply.
    pub text: String,
    /// The inputs that are asserted after the access.
    pub asserted: Asserted,
}

/// The asserted interrupt inputs, one bit each: the IRQs of the watched CPUs, then their FIQs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asserted(pub(super) u32);

impl fmt::Display for Asserted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<u32> = (0..32).filter(|number| self.0 >> number & 1 == 1).collect();
        write!(f, "{numbers:?}")
    }
}

/// The CPUs whose interrupt inputs are watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watch {
    /// All CPUs. Only recent versions of QEMU support this.
    All,
    /// CPU 1. Every version of QEMU supports this.
    One,
}

/// Formats the line of QEMU's protocol that makes QEMU report changes of the inputs.
impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "irq_intercept_out {GIC} sysbus-irq"),
            Self::One => f.write_str("irq_intercept_in /machine/unattached/device[1]"),
        }
    }
}
