//! Compares Doorbell's model with QEMU's GICv3 and ITS. Both machines receive the same accesses,
//! and must reply in the same way.
//!
//! If a difference is permitted, or is a bug in QEMU, the comparison ignores as few bits as
//! possible; [`DIFFERENCES`] lists all of these bits. No case sends inputs whose effect the
//! architecture doesn't define; `docs/differential.md` lists them. A redistributor writes its
//! pending table when its LPIs are disabled, which shows the LPIs that are pending at that
//! redistributor. The interrupt inputs of the CPUs, and the interrupts that CPUs acknowledge, show
//! what is delivered to each CPU. The formats of the ITS tables are private to each machine, so the
//! tables are not compared.

mod access;
mod acknowledge;
mod address_map;
mod cases;
mod command;
mod compare;
mod difference;
mod family;
mod model;
mod peer;
mod program;
mod qemu;
mod registers;
mod run;
mod script;
mod sequences;
mod server;
mod software;
mod step;
mod world;

pub use access::Access;
pub use acknowledge::Acknowledged;
pub use address_map::CPUS;
pub use compare::Mismatch;
pub use difference::{DIFFERENCES, Difference};
pub use family::Family;
pub use model::Model;
pub use peer::{Asserted, Peer, PeerReply, Watch};
pub use qemu::Qemu;
pub use run::{Comparison, Finding, Limits, compare, reset_values};
pub use sequences::sequences;
pub use server::Server;
pub use vgic::SecurityView;
pub use world::World;

#[cfg(test)]
mod tests;
