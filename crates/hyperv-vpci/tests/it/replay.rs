//! Replays packets of foreign ends to both ends: packets recorded from OpenVMM, and sequences taken
//! from Linux's driver. Each end sleeps until it is signaled.

mod guest;
mod host;
mod script;
