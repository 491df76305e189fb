//! Doorbell's model against QEMU's GICv3 and ITS, over QEMU's qtest protocol: the same lines are said to both, and their
//! replies compared.
//!
//! Where a difference is allowed, or is QEMU's mistake, the narrowest set of bits is left out of the comparison; all of
//! them stand in [`DIFFERENCES`], and the inputs whose effect the architecture leaves open, which no case sends, in
//! [`NOT_SENT`]. Which LPI is pending where is seen in the pending tables that a redistributor writes when its LPIs are
//! disabled; which is delivered where, in what CPUs acknowledge. Table formats are private to each machine and not compared.

mod acknowledge;
mod cases;
mod command;
mod compare;
mod difference;
mod mutant;
mod peer;
mod places;
mod qemu;
mod registers;
mod run;
mod software;
mod step;

pub use acknowledge::Acknowledged;
pub use cases::Family;
pub use compare::Mismatch;
pub use difference::{DIFFERENCES, Difference, NOT_SENT, NotSent, Registers, Verdict, When};
pub use mutant::{Faulty, MUTANTS, Mutant};
pub use peer::{Model, Peer};
pub use places::CPUS;
pub use qemu::{Cpus, Qemu};
pub use run::{Finding, Limits, family, hunt, reset_values};

#[cfg(test)]
use step::Width;
#[cfg(test)]
mod tests;
