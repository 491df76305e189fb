//! Tests of a whole machine's state, on the model and on KVM.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kvm;
mod machine_state;
