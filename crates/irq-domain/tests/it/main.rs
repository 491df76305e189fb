//! Interrupt core tests, with fakes that panic on misuse: a kernel, two kinds of controller, and a
//! message store.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod affinity;
mod allocation;
mod chained;
mod contexts;
mod copies;
mod cost;
mod dispatch;
mod dynamic;
mod ecam;
mod enumeration;
mod explain;
mod function;
mod handle;
mod ims;
mod irq_return;
mod isolation;
mod layer;
mod levels;
mod managed;
mod mock;
mod msi;
mod msix;
mod negotiation;
mod out_of_memory;
mod restore;
mod shared_line;
mod store;
mod threads;
mod view;
mod wired;
