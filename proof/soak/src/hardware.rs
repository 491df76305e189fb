//! vCPUs and their virtual interfaces, shared with the model's own tests.

#[path = "../../../crates/vgic/tests/model/half.rs"]
#[expect(dead_code, reason = "shared with the model's tests")]
mod half;
#[path = "../../../crates/vgic/tests/model/virtual_interface.rs"]
mod virtual_interface;

pub(crate) use doorbell_test_support::guest::Physical;
pub(crate) use half::{ExitPolicy, Half};
pub(crate) use virtual_interface::vtr;
