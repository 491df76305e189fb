//! Tests of routes, and of the parts of devices and monitors that signal them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod controller;
mod device_eventfds;
mod explain;
mod irqfd;
mod msi;
mod msix;
mod router;
mod saved_state;
mod steady_state;
mod translation;
mod virtio;
