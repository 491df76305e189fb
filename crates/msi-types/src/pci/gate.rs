use core::fmt;

/// Bits outside of the registers of an MSI controller inside a host bridge. While one of them is
/// clear, no message interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum MsiGate {
    /// MSI Enable in the MSI capability of the bridge's root port, although the port itself sends
    /// no messages.
    RootPort,
    /// Bits of a 32-bit register in the logic around the bridge.
    Register {
        /// Physical address of the register.
        address: u64,
        /// The bits, all of which must be set.
        bits: u32,
    },
}

impl fmt::Display for MsiGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootPort => f.write_str("MSI Enable of the root port"),
            Self::Register { address, bits } => write!(f, "{bits:#x} in the register {address:#x}"),
        }
    }
}
