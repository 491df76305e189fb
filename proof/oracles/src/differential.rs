//! Compares Doorbell's model with QEMU's GICv3 and ITS over QEMU's qtest protocol: both receive the
//! same lines, and their replies are compared.
//!
//! If a difference is permitted, or is a bug in QEMU, the narrowest possible set of bits is omitted
//! from the comparison; [`DIFFERENCES`] lists all of them. [`NOT_SENT`] lists the inputs whose
//! effect the architecture leaves open, which no case sends. The pending tables that a
//! redistributor writes when its LPIs are disabled show which LPIs are pending where. The interrupt
//! inputs of CPUs, and the interrupts that CPUs acknowledge, show which are delivered where. Table
//! formats are private to each machine and are not compared.

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
