//! Parts of a GIC, as named in errors.

use core::fmt;

/// The part of the GIC that an error is about.
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
