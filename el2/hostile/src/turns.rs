//! Runs the selected attack, bounds its duration, and counts its turns.

use crate::exceptions;
use image_rt::{cpu, power};
use spin::Once;

/// An attack that a vCPU repeats until its time is over.
pub(crate) type Attack = fn(&mut Turns);

/// The selected attack, and its duration in milliseconds.
static ATTACK: Once<(Attack, u64)> = Once::new();

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

/// Selects the attack of all vCPUs.
pub(crate) fn select(attack: Attack, milliseconds: u64) {
    ATTACK.call_once(|| (attack, milliseconds));
}

/// Runs the attack on this vCPU until its duration has elapsed. Returns the number of turns.
pub(crate) fn attack_here() -> u64 {
    cpu::irq_save();
    exceptions::install();
    let &(attack, milliseconds) = ATTACK.get().expect("the attack is selected before vCPUs start");
    let mut turns = Turns::until(milliseconds);
    attack(&mut turns);
    turns.count()
}

/// Runs the attack on this vCPU, and then turns the vCPU off.
pub(crate) fn attack_and_turn_off() {
    attack_here();
    power::cpu_off();
}
