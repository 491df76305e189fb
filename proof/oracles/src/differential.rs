//! Doorbell's model against QEMU's GICv3 and ITS, over QEMU's qtest protocol: the same lines are
//! said to both, and their replies compared.
//!
//! If a difference is allowed, or is QEMU's mistake, the narrowest set of bits is left out of the
//! comparison: [`DIFFERENCES`] has them all. [`NOT_SENT`] has the inputs whose effect the
//! architecture leaves open; no case sends them. The pending tables that a redistributor writes
//! when its LPIs are disabled show which LPI is pending where. The interrupt inputs of CPUs, and
//! what CPUs acknowledge, show which is delivered where. Table formats are private to each machine
//! and not compared.

mod acknowledge;
mod address_map;
mod cases;
mod command;
mod compare;
mod difference;
mod family;
mod mutant;
mod peer;
mod program;
mod qemu;
mod registers;
mod run;
mod script;
mod software;
mod step;
mod world;

pub use acknowledge::Acknowledged;
pub use address_map::CPUS;
pub use compare::Mismatch;
pub use difference::{DIFFERENCES, Difference, NOT_SENT, NotSent, Registers, Verdict, When};
pub use family::Family;
pub use mutant::{Faulty, MUTANTS, Mutant};
pub use peer::{Asserted, Model, Peer, Reply, WATCH_ALL, WATCH_ONE};
pub use qemu::Qemu;
pub use run::{Comparison, Finding, Limits, compare, hunt, reset_values};
pub use world::World;

#[cfg(test)]
use step::Width;
#[cfg(test)]
mod tests;
