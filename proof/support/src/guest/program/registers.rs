//! The registers that programs access to use wired interrupts.

use gic_arch::icc::{self, SysRegEncoding};
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
    pub(super) const fn row(self) -> &'static (&'static str, Self, [IntIdField; 3]) {
        &Self::ALL[self as usize]
    }
}

/// A register of the CPU interface. Some exist once per group.
#[expect(missing_docs, reason = "the table names the registers")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    Pmr,
    Rpr,
    Ctlr,
    Dir,
    Iar(usize),
    Eoir(usize),
    Hppir(usize),
    Bpr(usize),
    Igrpen(usize),
    Sgi(usize),
}

impl Register {
    /// All registers, with their names and encodings.
    pub const ALL: [(&str, Self, SysRegEncoding); 16] = [
        ("pmr", Self::Pmr, icc::PMR.encoding()),
        ("rpr", Self::Rpr, icc::RPR.encoding()),
        ("ctlr", Self::Ctlr, icc::CTLR.encoding()),
        ("dir", Self::Dir, icc::DIR.encoding()),
        ("iar0", Self::Iar(0), icc::IAR0.encoding()),
        ("iar1", Self::Iar(1), icc::IAR1.encoding()),
        ("eoir0", Self::Eoir(0), icc::EOIR0.encoding()),
        ("eoir1", Self::Eoir(1), icc::EOIR1.encoding()),
        ("hppir0", Self::Hppir(0), icc::HPPIR0.encoding()),
        ("hppir1", Self::Hppir(1), icc::HPPIR1.encoding()),
        ("bpr0", Self::Bpr(0), icc::BPR0.encoding()),
        ("bpr1", Self::Bpr(1), icc::BPR1.encoding()),
        ("igrpen0", Self::Igrpen(0), icc::IGRPEN0.encoding()),
        ("igrpen1", Self::Igrpen(1), icc::IGRPEN1.encoding()),
        ("sgi0r", Self::Sgi(0), icc::SGI0R.encoding()),
        ("sgi1r", Self::Sgi(1), icc::SGI1R.encoding()),
    ];

    /// Returns the register's name and encoding.
    pub(super) fn row(self) -> (&'static str, SysRegEncoding) {
        let row = Self::ALL.iter().find(|(_, register, _)| *register == self);
        row.map(|(name, _, encoding)| (*name, *encoding)).expect("the register is in the table")
    }

    /// Returns `true` for a register that only a guest with Group 0 has.
    pub(in crate::guest) const fn is_of_group_0(self) -> bool {
        matches!(
            self,
            Self::Iar(0) | Self::Eoir(0) | Self::Hppir(0) | Self::Bpr(0) | Self::Igrpen(0)
        )
    }
}
