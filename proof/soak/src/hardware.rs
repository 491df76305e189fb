//! vCPUs, their virtual interfaces and physical interrupts, shared with the model's own tests.

#[path = "../../../crates/vgic/tests/model/half.rs"]
#[expect(dead_code, reason = "shared with the model's tests")]
mod half;
#[path = "../../../crates/vgic/tests/model/physical.rs"]
#[expect(dead_code, reason = "shared with the model's tests")]
mod physical;
#[path = "../../../crates/vgic/tests/model/virtual_interface.rs"]
mod virtual_interface;

pub(crate) use half::{ExitPolicy, Half};
pub(crate) use physical::Physical;
pub(crate) use virtual_interface::vtr;
