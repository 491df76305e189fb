//! Attributes for the CPU interface registers, with one security state and 5 priority bits.

use crate::abi::Errno;
use crate::word::low_word;
use gic_arch::icc::{self, Ctlr, Igrpen, Sre, SysRegEncoding};
use vgic::saved_state::InterfaceState;

/// Lowest values of the binary points on a machine with 5 priority bits.
const SMALLEST_BPR0: u8 = 2;
const SMALLEST_BPR1: u8 = 3;
const LARGEST_BPR: u8 = 7;

/// Returns `true` if the register has an attribute, even if a machine with 5 priority bits does not
/// use the register.
pub(super) fn has(register: SysRegEncoding) -> bool {
    !matches!(Which::of(register), Err(Errno::NoEntry))
}

pub(super) fn get(state: &InterfaceState, register: SysRegEncoding) -> Result<u64, Errno> {
    let ctlr = Ctlr::from(state.ctlr);
    Ok(match Which::of(register)? {
        Which::Sre => Sre::new().with_sre(true).with_dfb(true).with_dib(true).into_bits(),
        Which::Ctlr => ctlr.with_rss(false).with_ext_range(false).into_bits(),
        Which::Pmr => state.pmr.into(),
        Which::Bpr0 => state.bpr0.into(),
        Which::Bpr1 if ctlr.cbpr() => (state.bpr0 + 1).min(LARGEST_BPR).into(),
        Which::Bpr1 => state.bpr1.into(),
        Which::Igrpen0 => state.igrpen0.into(),
        Which::Igrpen1 => state.igrpen1.into(),
        Which::Ap0r0 => state.ap0r[0].into(),
        Which::Ap1r0 => state.ap1r[0].into(),
    })
}

pub(super) fn set(
    state: &mut InterfaceState,
    priority_bits: u8,
    register: SysRegEncoding,
    value: u64,
) -> Result<(), Errno> {
    let low = value.to_le_bytes()[0];
    match Which::of(register)? {
        Which::Sre if Sre::from(value).sre() => {}
        Which::Sre => return Err(Errno::Invalid),
        Which::Ctlr => {
            let (ours, theirs) = (Ctlr::from(state.ctlr), Ctlr::from(value));
            let same = theirs.a3v() == ours.a3v() && theirs.seis() == ours.seis();
            if !same || theirs.pri_bits_minus_one() >= priority_bits {
                return Err(Errno::Invalid);
            }
            state.ctlr = ours.with_cbpr(theirs.cbpr()).with_eoi_mode(theirs.eoi_mode()).into_bits();
        }
        Which::Pmr => state.pmr = low & 0xf8,
        Which::Bpr0 => state.bpr0 = (low & LARGEST_BPR).max(SMALLEST_BPR0),
        Which::Bpr1 if Ctlr::from(state.ctlr).cbpr() => {}
        Which::Bpr1 => state.bpr1 = (low & LARGEST_BPR).max(SMALLEST_BPR1),
        Which::Igrpen0 => state.igrpen0 = Igrpen::from(value).enable(),
        Which::Igrpen1 => state.igrpen1 = Igrpen::from(value).enable(),
        Which::Ap0r0 => state.ap0r[0] = low_word(value),
        Which::Ap1r0 => state.ap1r[0] = low_word(value),
    }
    Ok(())
}

/// Registers that have attributes.
enum Which {
    Sre,
    Ctlr,
    Pmr,
    Bpr0,
    Bpr1,
    Igrpen0,
    Igrpen1,
    Ap0r0,
    Ap1r0,
}

impl Which {
    /// Identifies a register. Fails with `EINVAL` for active priority registers that 5 priority
    /// bits do not use, and with `ENOENT` for registers without state.
    fn of(register: SysRegEncoding) -> Result<Self, Errno> {
        let beyond =
            |group: [icc::SysReg<u64>; 4]| group.iter().any(|which| which.encoding() == register);
        Ok(match register {
            _ if register == icc::SRE.encoding() => Self::Sre,
            _ if register == icc::CTLR.encoding() => Self::Ctlr,
            _ if register == icc::PMR.encoding() => Self::Pmr,
            _ if register == icc::BPR0.encoding() => Self::Bpr0,
            _ if register == icc::BPR1.encoding() => Self::Bpr1,
            _ if register == icc::IGRPEN0.encoding() => Self::Igrpen0,
            _ if register == icc::IGRPEN1.encoding() => Self::Igrpen1,
            _ if register == icc::AP0R0.encoding() => Self::Ap0r0,
            _ if register == icc::AP1R0.encoding() => Self::Ap1r0,
            _ if beyond(icc::AP0R) || beyond(icc::AP1R) => return Err(Errno::Invalid),
            _ => return Err(Errno::NoEntry),
        })
    }
}
