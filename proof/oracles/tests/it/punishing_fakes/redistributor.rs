//! A redistributor that must be woken before it is used, and whose tables must not change while
//! LPIs are enabled.

use std::collections::HashMap;

pub(crate) struct Redistributor {
    number: u64,
    sleeps: bool,
    /// Number of reads that still return `ChildrenAsleep` = 1.
    waking: u32,
    control: u64,
    enabled: u64,
    plain: HashMap<u64, u64>,
}

const ENABLE_LPIS: u64 = 1;

impl Redistributor {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, sleeps: true, waking: 5, control: 0, enabled: 0, plain: HashMap::new() }
    }

    pub(crate) fn awake(&self) -> bool {
        !self.sleeps && self.waking == 0
    }

    pub(crate) fn read(&mut self, offset: u64) -> u64 {
        match offset {
            // CES: LPIs can be disabled again after they have been enabled.
            0x0000 => self.control | 2,
            0x0004 => 0x43B,
            // Fields: affinity 0.0.0.n, processor n, and PLPIS. Redistributor 1 is the last one.
            0x0008 => self.number << 32 | self.number << 8 | u64::from(self.number == 1) << 4 | 1,
            0x0014 => self.waker(),
            0xFFE8 => 0x3B,
            0x1_0100 | 0x1_0180 => self.enabled,
            _ => self.plain.get(&offset).copied().unwrap_or(0),
        }
    }

    pub(crate) fn write(&mut self, offset: u64, value: u64) {
        match offset {
            0x0014 => {
                assert_eq!(value & !6, 0, "reserved bits of GICR_WAKER");
                self.sleeps = value & 2 != 0;
            }
            _ if !self.awake() => {
                panic!("GICR+{offset:#x} was written while the redistributor was asleep")
            }
            0x0000 => self.control = value & ENABLE_LPIS,
            0x0070 | 0x0078 => {
                assert_eq!(
                    self.control & ENABLE_LPIS,
                    0,
                    "a table was moved while LPIs were enabled"
                );
                self.plain.insert(offset, if offset == 0x78 { value & !(1 << 62) } else { value });
            }
            0x1_0100 => self.enabled |= value,
            0x1_0180 => self.enabled &= !value,
            _ => {
                self.plain.insert(offset, value);
            }
        }
    }

    fn waker(&mut self) -> u64 {
        if self.sleeps {
            return 0b110;
        }
        self.waking = self.waking.saturating_sub(1);
        if self.waking == 0 { 0 } else { 0b100 }
    }
}
