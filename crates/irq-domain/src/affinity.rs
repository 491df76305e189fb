//! CPU affinity: the kernel's policy, the online CPUs, and moves between CPUs.

pub(crate) mod choice;
pub(crate) mod lists;
pub(crate) mod placement;
pub(crate) mod policy;
