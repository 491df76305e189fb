//! The registers of the CPU interface that programs access.

use gic_arch::icc::{self, SysRegEncoding};

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
