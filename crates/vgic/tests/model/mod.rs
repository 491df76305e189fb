//! vCPUs of either kind, and the hardware's virtual CPU interface.

pub(crate) mod half;
pub(crate) mod virtual_interface;
