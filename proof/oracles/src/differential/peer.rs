//! What the two machines have in common.

use super::acknowledge::Acknowledged;
use anyhow::Result;
use std::fmt;
use std::ops::Range;

/// A machine that speaks the qtest protocol.
pub trait Peer {
    /// Resets the machine and zeroes the memory that cases use.
    ///
    /// # Errors
    /// Returns an error if the machine has exited.
    fn reset(&mut self) -> Result<()>;

    /// Returns the machine's replies to the lines, in order.
    ///
    /// # Errors
    /// Returns an error if the machine has exited.
    fn replies(&mut self, lines: &mut dyn Iterator<Item = &str>) -> Result<Vec<PeerReply>>;

    /// Makes each of these CPUs acknowledge interrupts until none is pending.
    ///
    /// # Errors
    /// Returns an error if the machine has exited, or if its CPUs are not running.
    fn acknowledge(&mut self, cpus: Range<u16>) -> Result<Vec<Vec<Acknowledged>>>;

    /// Returns the CPU interrupt inputs that are asserted, among those that are intercepted.
    fn asserted(&self) -> Asserted;

    /// Returns the protocol line that makes the machine report changes of these inputs.
    fn watch(&self) -> &str;
}

/// A machine's reply to a protocol line, and the inputs that are asserted afterwards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerReply {
    /// Text of the reply.
    pub text: String,
    /// The inputs that are asserted after the line.
    pub asserted: Asserted,
}

/// The interrupt inputs of the CPUs, by their numbers in the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asserted(pub(super) u32);

impl Asserted {
    /// Updates the inputs if `line` reports a change of one. Returns `true` if `line` reports a
    /// change.
    pub(super) fn follow(&mut self, line: &str) -> bool {
        let change = line.strip_prefix("IRQ ").and_then(|change| change.split_once(' '));
        let Some((what, Ok(number @ 0..32))) =
            change.map(|(what, number)| (what, number.parse::<u32>()))
        else {
            return false;
        };
        match what {
            "raise" => self.0 |= 1 << number,
            _ => self.0 &= !(1 << number),
        }
        true
    }
}

impl fmt::Display for Asserted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<u32> = (0..32).filter(|number| self.0 >> number & 1 == 1).collect();
        write!(f, "{numbers:?}")
    }
}

/// Intercepts the IRQ and FIQ inputs of all CPUs. Only recent versions of QEMU support this.
pub const WATCH_ALL: &str = "irq_intercept_out /machine/unattached/device[3] sysbus-irq";
/// Intercepts one CPU's inputs. Every version of QEMU supports this.
pub const WATCH_ONE: &str = "irq_intercept_in /machine/unattached/device[1]";
