//! The families of cases.

/// A family of cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Distributor and redistributor registers, and interrupt lines.
    Wired,
    /// ITS registers, and the LPI registers of the redistributors.
    LpiRegisters,
    /// Commands, messages, and tables.
    Commands,
    /// The order in which CPUs acknowledge interrupts.
    Delivery,
}

impl Family {
    /// Returns the family's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wired => "distributor, redistributors and lines",
            Self::LpiRegisters => "registers of the ITS and of LPIs",
            Self::Commands => "commands, messages and LPI tables",
            Self::Delivery => "what CPUs acknowledge, and in which order",
        }
    }
}
