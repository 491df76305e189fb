//! Pseudo-random numbers, the same in every run.

use image_rt::cpu;

/// A xorshift generator (Marsaglia 2003) with 64 bits of state.
pub(crate) struct Random(u64);

impl Random {
    const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Returns a generator with a different seed on each vCPU.
    pub(crate) fn here() -> Self {
        Self::new(0x9e37_79b9_7f4a_7c15 ^ cpu::mpidr() << 20)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 8) % end
    }

    /// Returns a value that is likely to provoke errors in a register: all zeros, all ones, one
    /// bit, a small number, or any number.
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
