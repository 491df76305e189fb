//! Guest and host against each other: what reviews asked for, and each end with a peer that
//! misbehaves.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing to unwrap has failed")]

mod apic;
mod asleep;
mod board;
mod changes;
mod crowd;
mod deletions;
mod demands;
mod ejection;
mod gic;
mod host;
mod hostile;
mod misbehaviour;
mod negotiation;
mod openvmm;
mod out_of_memory;
mod saved;
mod senders;
mod signals;
mod tamper;
