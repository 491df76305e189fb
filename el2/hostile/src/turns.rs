//! Bounds an attack's duration, and counts its turns.

use image_rt::cpu;

/// The duration of an attack, and the number of its turns.
pub(crate) struct Turns {
    end: u64,
    count: u64,
}

impl Turns {
    /// Starts the time of an attack.
    pub(crate) fn until(milliseconds: u64) -> Self {
        Self { end: cpu::ticks() + milliseconds * cpu::ticks_per_millisecond(), count: 0 }
    }

    /// Starts another turn. Returns `false` if the attack's time is over.
    pub(crate) fn next(&mut self) -> bool {
        self.count += 1;
        cpu::ticks() < self.end
    }

    /// Returns the number of turns.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}
