//! GIC blocks.

use core::fmt;

/// A part of the GIC, for use in errors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Block {
    /// The distributor at this physical address.
    Distributor(u64),
    /// The redistributor with RD_base at this physical address.
    Redistributor(u64),
    /// The calling CPU's interface.
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
