//! A distributor with 224 SPIs and one security state.

use std::collections::{BTreeSet, HashMap};

/// The distributor. Writing ones sets or clears bits, and disabling an interrupt takes effect once
/// `RWP` has counted down.
#[derive(Default)]
pub(crate) struct Distributor {
    /// Number of `GICD_CTLR` reads that return `RWP` = 1 after a write that takes time. `u32::MAX`
    /// means forever.
    pub(crate) write_takes: u32,
    control: u64,
    busy: u32,
    enabled: BTreeSet<u32>,
    disabling: BTreeSet<u32>,
    pending: BTreeSet<u32>,
    plain: HashMap<u64, u8>,
}

const RWP: u64 = 1 << 31;

impl Distributor {
    /// Returns the SPIs that the hardware would forward, in ascending order.
    pub(crate) fn forwarded(&self) -> Vec<u32> {
        self.enabled.iter().copied().collect()
    }

    /// Returns the pending SPIs in ascending order.
    pub(crate) fn pending(&self) -> Vec<u32> {
        self.pending.iter().copied().collect()
    }

    pub(crate) fn read(&mut self, offset: u64) -> u64 {
        match offset {
            0x0000 => self.control | self.tick(),
            // Fields: ITLinesNumber 7, 16 INTID bits, and LPIS.
            0x0004 => 7 | 1 << 17 | 15 << 19,
            0x0008 => 0x43B,
            0xFFE8 => 0x3B,
            0x0100..0x0200 => bits(&self.enabled, offset & 0x7F),
            0x0200..0x0300 => bits(&self.pending, offset & 0x7F),
            0x0300..0x0400 => 0,
            _ => (0..8).rev().fold(0, |value, byte| {
                value << 8 | u64::from(self.plain.get(&(offset + byte)).copied().unwrap_or(0))
            }),
        }
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: u32, value: u64) {
        let affected = |base: u64| {
            (0..32).filter(move |bit| value & 1 << bit != 0).map(move |bit| number(base, bit))
        };
        match offset {
            0x0000 => {
                // ARE and DS read as one, as on a GIC that has a single security state and system
                // registers only.
                self.control = value & 0x93 | 0x50;
                self.busy = self.write_takes;
            }
            0x0100..0x0180 => {
                for spi in affected(offset & 0x7F) {
                    self.disabling.remove(&spi);
                    self.enabled.insert(spi);
                }
            }
            0x0180..0x0200 => {
                self.disabling.extend(affected(offset & 0x7F));
                self.busy = self.write_takes;
            }
            0x0200..0x0280 => self.pending.extend(affected(offset & 0x7F)),
            0x0280..0x0300 => affected(offset & 0x7F).for_each(|spi| {
                self.pending.remove(&spi);
            }),
            0x0300..0x0400 => {}
            _ => {
                for (at, byte) in (offset..).zip(value.to_le_bytes()).take(bytes as usize) {
                    self.plain.insert(at, byte);
                }
            }
        }
    }

    /// Returns the value of `RWP` for one read, and counts down.
    fn tick(&mut self) -> u64 {
        if self.busy == 0 {
            self.enabled.retain(|spi| !self.disabling.contains(spi));
            self.disabling.clear();
            return 0;
        }
        if self.busy != u32::MAX {
            self.busy -= 1;
        }
        RWP
    }
}

fn number(base: u64, bit: u64) -> u32 {
    u32::try_from(base * 8 + bit).unwrap()
}

fn bits(set: &BTreeSet<u32>, base: u64) -> u64 {
    (0..32).filter(|&bit| set.contains(&number(base, bit))).fold(0, |value, bit| value | 1 << bit)
}
