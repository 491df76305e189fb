//! Numbers that are the same in every run.

use image_rt::cpu;

/// Xorshift (Marsaglia 2003), with 64 bits.
pub(crate) struct Random(u64);

impl Random {
    const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Others on each vCPU.
    pub(crate) fn here() -> Self {
        Self::new(0x9e37_79b9_7f4a_7c15 ^ cpu::mpidr() << 20)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 8) % end
    }

    /// A value that a register may find hard: nothing, everything, one bit, small, or anything.
    pub(crate) fn value(&mut self) -> u64 {
        match self.below(5) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => self.below(256),
            _ => self.next(),
        }
    }
}
