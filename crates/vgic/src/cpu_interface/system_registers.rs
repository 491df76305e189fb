//! The system registers of the CPU interface, `ICC_*` (IHI 0069 §12.2), as a table of encodings and
//! functions.

use crate::cpu_interface::CpuInterface;
use crate::registers::{low_byte, low_word};
use crate::vcpu::Vcpu;
use crate::wired::Group;
use crate::{SecurityView, Undefined};
use gic_arch::icc::{self, Ctlr, Igrpen, IntIdValue, Sgi, Sre, SysRegEncoding};
use gic_arch::{IntId, Priority};

/// Handler of `MRS`.
type Read = fn(&mut Vcpu) -> Result<u64, Undefined>;
/// Handler of `MSR`.
type Write = fn(&mut Vcpu, u64) -> Result<(), Undefined>;

/// One register.
struct Row {
    encoding: SysRegEncoding,
    read: Read,
    write: Write,
}

/// Reads a register on behalf of the guest.
pub(crate) fn read(vcpu: &mut Vcpu, encoding: SysRegEncoding) -> Result<u64, Undefined> {
    (row(encoding).ok_or(Undefined(encoding))?.read)(vcpu)
}

/// Writes a register on behalf of the guest.
pub(crate) fn write(
    vcpu: &mut Vcpu,
    encoding: SysRegEncoding,
    value: u64,
) -> Result<(), Undefined> {
    (row(encoding).ok_or(Undefined(encoding))?.write)(vcpu, value)
}

fn row(encoding: SysRegEncoding) -> Option<&'static Row> {
    let at = ROWS.binary_search_by_key(&encoding, |row| row.encoding).ok()?;
    ROWS.get(at)
}

/// A row: `row!(REGISTER, read, write)`; a direction that does not exist is `undefined`.
macro_rules! row {
    ($register:ident, undefined, $write:expr) => {
        Row {
            encoding: icc::$register.encoding(),
            read: |_| Err(Undefined(icc::$register.encoding())),
            write: $write,
        }
    };
    ($register:ident, $read:expr, undefined) => {
        Row {
            encoding: icc::$register.encoding(),
            read: $read,
            write: |_, _| Err(Undefined(icc::$register.encoding())),
        }
    };
    ($register:ident, $read:expr, $write:expr) => {
        Row { encoding: icc::$register.encoding(), read: $read, write: $write }
    };
}

/// A row for register `$index` of a group's active priorities.
macro_rules! active_priorities {
    ($register:ident, $group:expr, $index:literal) => {
        row!(
            $register,
            |v| {
                v.exists(icc::$register.encoding(), $group, $index)?;
                Ok(v.interface.active_word($group, $index).into())
            },
            |v, value| {
                v.exists(icc::$register.encoding(), $group, $index)?;
                v.interface.set_active_word($group, $index, low_word(value));
                Ok(())
            }
        )
    };
}

/// Ascending by encoding.
static ROWS: &[Row] = &[
    row!(PMR, |v| Ok(v.interface.mask_view().into()), |v, value| {
        v.interface.set_mask(byte(value));
        Ok(())
    }),
    row!(
        IAR0,
        |v| v.in_group_zero(icc::IAR0.encoding(), |v| acknowledge(v, Group::Zero)),
        undefined
    ),
    row!(EOIR0, undefined, |v, value| {
        v.in_group_zero(icc::EOIR0.encoding(), |v| v.end(Group::Zero, intid(value)))
    }),
    row!(
        HPPIR0,
        |v| v.in_group_zero(icc::HPPIR0.encoding(), |v| highest(v, Group::Zero)),
        undefined
    ),
    row!(
        BPR0,
        |v| v.in_group_zero(icc::BPR0.encoding(), |v| v.interface.binary_point(Group::Zero).into()),
        |v, value| {
            v.in_group_zero(icc::BPR0.encoding(), |v| {
                v.interface.set_binary_point(Group::Zero, byte(value));
            })
        }
    ),
    active_priorities!(AP0R0, Group::Zero, 0),
    active_priorities!(AP0R1, Group::Zero, 1),
    active_priorities!(AP0R2, Group::Zero, 2),
    active_priorities!(AP0R3, Group::Zero, 3),
    active_priorities!(AP1R0, Group::One, 0),
    active_priorities!(AP1R1, Group::One, 1),
    active_priorities!(AP1R2, Group::One, 2),
    active_priorities!(AP1R3, Group::One, 3),
    row!(DIR, undefined, |v, value| {
        v.deactivate(intid(value));
        Ok(())
    }),
    row!(RPR, |v| Ok(v.interface.running_view().into()), undefined),
    row!(SGI1R, undefined, |v, value| {
        v.send(Sgi::from(value), Group::One);
        Ok(())
    }),
    row!(ASGI1R, undefined, |v, value| {
        v.send(Sgi::from(value), Group::Zero);
        Ok(())
    }),
    row!(SGI0R, undefined, |v, value| {
        v.send(Sgi::from(value), Group::Zero);
        Ok(())
    }),
    row!(IAR1, |v| Ok(acknowledge(v, Group::One)), undefined),
    row!(EOIR1, undefined, |v, value| {
        v.end(Group::One, intid(value));
        Ok(())
    }),
    row!(HPPIR1, |v| Ok(highest(v, Group::One)), undefined),
    row!(BPR1, |v| Ok(v.interface.binary_point(Group::One).into()), |v, value| {
        v.interface.set_binary_point(Group::One, byte(value));
        Ok(())
    }),
    row!(CTLR, |v| Ok(v.interface.control().into_bits()), |v, value| {
        v.interface.set_control(Ctlr::from(value));
        Ok(())
    }),
    row!(
        SRE,
        |_| Ok(Sre::new().with_sre(true).with_dfb(true).with_dib(true).into_bits()),
        |_, _| Ok(())
    ),
    row!(
        IGRPEN0,
        |v| v.in_group_zero(icc::IGRPEN0.encoding(), |v| enable(v, Group::Zero)),
        |v, value| {
            v.in_group_zero(icc::IGRPEN0.encoding(), |v| {
                v.enable_group(Group::Zero, Igrpen::from(value));
            })
        }
    ),
    row!(IGRPEN1, |v| Ok(enable(v, Group::One)), |v, value| {
        v.enable_group(Group::One, Igrpen::from(value));
        Ok(())
    }),
];

fn acknowledge(vcpu: &mut Vcpu, group: Group) -> u64 {
    IntIdValue::of(vcpu.acknowledge(group).unwrap_or(IntId::SPURIOUS)).into_bits()
}

fn highest(vcpu: &mut Vcpu, group: Group) -> u64 {
    IntIdValue::of(vcpu.highest(group).unwrap_or(IntId::SPURIOUS)).into_bits()
}

fn enable(vcpu: &Vcpu, group: Group) -> u64 {
    Igrpen::new().with_enable(vcpu.interface.takes(group)).into_bits()
}

fn intid(value: u64) -> IntId {
    IntIdValue::from(value).intid()
}

/// The low byte of a register whose other bits are RES0.
const fn byte(value: u64) -> u8 {
    low_byte(low_word(value))
}

/// Views of the state that only these registers need.
impl CpuInterface {
    /// `ICC_PMR_EL1` as the guest reads it.
    fn mask_view(&self) -> u8 {
        match self.features.security {
            SecurityView::Single => self.mask.get(),
            SecurityView::NonSecure => self.mask.non_secure_view().get(),
        }
    }

    /// The guest writes `ICC_PMR_EL1`.
    fn set_mask(&mut self, written: u8) {
        let mask = match self.features.security {
            SecurityView::Single => Priority::new(written),
            SecurityView::NonSecure => Priority::from_non_secure_view(written),
        };
        self.mask = mask.truncated(self.features.priority_bits.into());
    }

    /// `ICC_RPR_EL1` as the guest reads it.
    fn running_view(&self) -> u8 {
        match (self.features.security, self.running()) {
            (SecurityView::Single, running) | (_, running @ Priority::IDLE) => running.get(),
            (SecurityView::NonSecure, running) => running.non_secure_view().get(),
        }
    }

    /// `ICC_BPR<n>_EL1`. With `CBPR`, that of Group 1 shows one more than Group 0's.
    fn binary_point(&self, group: Group) -> u8 {
        match group {
            Group::One if self.common_binary_point => (self.binary_point[0] + 1).min(7),
            Group::Zero | Group::One => self.binary_point[group.index()],
        }
    }

    /// The guest writes `ICC_BPR<n>_EL1`. With `CBPR`, that of Group 1 ignores it.
    pub(super) fn set_binary_point(&mut self, group: Group, written: u8) {
        if group == Group::Zero || !self.common_binary_point {
            let smallest = self.features.smallest_binary_point(group);
            self.binary_point[group.index()] = (written & 7).max(smallest);
        }
    }

    pub(super) fn control(&self) -> Ctlr {
        Ctlr::new()
            .with_cbpr(self.common_binary_point)
            .with_eoi_mode(self.split_eoi)
            .with_pri_bits_minus_one(self.features.priority_bits - 1)
            .with_id_bits_code(self.features.id_bits_code)
            .with_a3v(true)
            .with_rss(true)
            .with_ext_range(self.features.extended_range)
    }

    /// With two security states, `CBPR` is the Non-secure one: Group 0's binary point, which the
    /// guest cannot see, then serves its group.
    pub(super) fn set_control(&mut self, written: Ctlr) {
        self.common_binary_point = written.cbpr();
        self.split_eoi = written.eoi_mode();
    }

    /// `ICC_AP<n>R<index>_EL1`.
    fn active_word(&self, group: Group, index: u32) -> u32 {
        let [word, ..] = [self.active[group.index()] >> (32 * index)];
        #[expect(clippy::cast_possible_truncation, reason = "the register has 32 of the bits")]
        let word = word as u32;
        word
    }

    /// The guest writes `ICC_AP<n>R<index>_EL1`: levels that the interface does not have, or that
    /// are the Secure side's, stay clear.
    pub(super) fn set_active_word(&mut self, group: Group, index: u32, written: u32) {
        let levels = 1u32 << self.features.preemption_bits();
        let all = u128::MAX >> (128 - levels);
        let allowed = match self.features.security {
            SecurityView::Single => all,
            SecurityView::NonSecure => all & !(all >> (levels / 2)),
        };
        let shift = 32 * index;
        let kept = self.active[group.index()] & !(u128::from(u32::MAX) << shift);
        self.active[group.index()] = kept | ((u128::from(written) << shift) & allowed);
    }

    pub(crate) fn set_takes(&mut self, group: Group, enable: Igrpen) {
        self.enabled[group.index()] = enable.enable();
    }
}

impl Vcpu {
    /// Runs `body` if the guest has Group 0's registers: the Non-secure side does not.
    fn in_group_zero<T>(
        &mut self,
        encoding: SysRegEncoding,
        body: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, Undefined> {
        match self.interface.features.security {
            SecurityView::Single => Ok(body(self)),
            SecurityView::NonSecure => Err(Undefined(encoding)),
        }
    }

    /// Is there active-priority register `index` of the group?
    fn exists(
        &self,
        encoding: SysRegEncoding,
        group: Group,
        index: usize,
    ) -> Result<(), Undefined> {
        let features = self.interface.features;
        let visible = group == Group::One || features.security == SecurityView::Single;
        if visible && index < features.active_priority_registers() {
            Ok(())
        } else {
            Err(Undefined(encoding))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_register_once_in_order() {
        let mut expected: std::vec::Vec<_> =
            icc::REGISTERS.iter().map(|(_, encoding)| *encoding).collect();
        expected.sort_unstable();
        let found: std::vec::Vec<_> = ROWS.iter().map(|row| row.encoding).collect();
        assert_eq!(found, expected);
    }
    extern crate std;
}
