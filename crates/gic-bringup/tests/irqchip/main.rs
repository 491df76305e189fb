//! A whole machine's interrupt controllers, driven on the device model of a GICv3 with an ITS.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing to unwrap has failed")]

mod hotplug;
mod machine;
mod out_of_memory;
