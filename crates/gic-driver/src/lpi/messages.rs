//! The messages that make LPIs pending.

use core::fmt;

/// To which register devices send the messages that make LPIs pending: one of them for all LPIs of
/// a GIC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LpiMessages {
    /// `GITS_TRANSLATER`, of any number of ITSes.
    Translated,
    /// `GICR_SETLPIR`, which is IMPLEMENTATION DEFINED where there is an ITS (IHI 0069,
    /// `GICR_SETLPIR`).
    Direct,
}

impl fmt::Display for LpiMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Translated => "an ITS: GICR_SETLPIR is IMPLEMENTATION DEFINED beside one",
            Self::Direct => "direct LPIs (GICR_SETLPIR)",
        })
    }
}
