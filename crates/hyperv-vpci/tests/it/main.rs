//! A guest and a host connected to each other: requirements from reviews, and each end's behavior
//! with a misbehaving peer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apic;
mod asleep;
mod board;
mod changes;
mod crowd;
mod deletions;
mod demands;
mod ejection;
mod floods;
mod gic;
mod host;
mod hostile;
mod misbehavior;
mod openvmm;
mod out_of_memory;
mod peer;
mod protocol;
mod replay;
mod ring;
mod saved;
mod senders;
mod signals;
mod successors;
mod tamper;
