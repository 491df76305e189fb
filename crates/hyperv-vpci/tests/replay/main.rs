//! Replays packets of foreign ends to both ends: packets recorded from OpenVMM, and sequences taken
//! from Linux's driver. Each end sleeps until it is signaled.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the replays use only some items")]
#[path = "../ends/gic.rs"]
mod gic;
mod guest;
mod host;
mod script;
