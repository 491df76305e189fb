//! The registers of the distributor and the redistributors with a field per interrupt.

use gic_arch::{IntIdField, gicd, gicr};

/// A register with a field per interrupt.
#[expect(missing_docs, reason = "the table names the registers")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    Enable,
    Disable,
    Pend,
    Unpend,
    Activate,
    Deactivate,
    Group,
    Priority,
    Trigger,
}

impl Field {
    /// All fields, with their names, and the registers of the distributor, of its extended SPIs,
    /// and of the redistributors.
    pub const ALL: [(&str, Self, [IntIdField; 3]); 9] = [
        ("isenabler", Self::Enable, [gicd::ISENABLER, gicd::ISENABLER_E, gicr::ISENABLER]),
        ("icenabler", Self::Disable, [gicd::ICENABLER, gicd::ICENABLER_E, gicr::ICENABLER]),
        ("ispendr", Self::Pend, [gicd::ISPENDR, gicd::ISPENDR_E, gicr::ISPENDR]),
        ("icpendr", Self::Unpend, [gicd::ICPENDR, gicd::ICPENDR_E, gicr::ICPENDR]),
        ("isactiver", Self::Activate, [gicd::ISACTIVER, gicd::ISACTIVER_E, gicr::ISACTIVER]),
        ("icactiver", Self::Deactivate, [gicd::ICACTIVER, gicd::ICACTIVER_E, gicr::ICACTIVER]),
        ("igroupr", Self::Group, [gicd::IGROUPR, gicd::IGROUPR_E, gicr::IGROUPR]),
        ("ipriorityr", Self::Priority, [gicd::IPRIORITYR, gicd::IPRIORITYR_E, gicr::IPRIORITYR]),
        ("icfgr", Self::Trigger, [gicd::ICFGR, gicd::ICFGR_E, gicr::ICFGR]),
    ];

    /// Returns the field's row in [`ALL`](Self::ALL).
    pub(crate) const fn row(self) -> &'static (&'static str, Self, [IntIdField; 3]) {
        &Self::ALL[self as usize]
    }
}
