//! The parts of a GIC.

use core::fmt;

/// A part of the GIC, as errors name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Block {
    /// The distributor whose frame has this physical address.
    Distributor(u64),
    /// The redistributor whose RD_base has this physical address.
    Redistributor(u64),
    /// The CPU interface of the calling CPU.
    CpuInterface,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distributor(base) => write!(f, "distributor@{base:x}"),
            Self::Redistributor(base) => write!(f, "redistributor@{base:x}"),
            Self::CpuInterface => f.write_str("CPU interface"),
        }
    }
}
