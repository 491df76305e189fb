//! The time of an attack, and its turns.

use image_rt::cpu;

/// The time of an attack.
pub(crate) struct Turns {
    end: u64,
    count: u64,
}

impl Turns {
    /// From now on.
    pub(crate) fn until(milliseconds: u64) -> Self {
        Self { end: cpu::ticks() + milliseconds * cpu::ticks_per_millisecond(), count: 0 }
    }

    /// Is there time for another one?
    pub(crate) fn next(&mut self) -> bool {
        self.count += 1;
        cpu::ticks() < self.end
    }

    /// Number of turns.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}
