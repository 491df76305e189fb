//! The CPUs that take interrupts: the kernel's policy, the CPUs on line, and moves between them.

pub(crate) mod choice;
pub(crate) mod lists;
pub(crate) mod placement;
pub(crate) mod policy;
