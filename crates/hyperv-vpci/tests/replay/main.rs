//! Both ends against packets of foreign ends: recorded packets of OpenVMM, and the sequences of
//! Linux's driver. Each end sleeps until it is signalled.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing to unwrap has failed")]

#[expect(dead_code, reason = "the replays need a part of it")]
#[path = "../ends/gic.rs"]
mod gic;
mod guest;
mod host;
mod script;
