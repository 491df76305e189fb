//! Counts how many changes of a working system an explanation names.

use crate::guide::check_guide_row;
use std::collections::BTreeMap;

/// Counts of changes of one kind of system. A change is a fault if it stops the interrupt.
#[derive(Debug)]
pub struct Score {
    /// The kind of system, as the guide's table names it.
    system: &'static str,
    changes: usize,
    faults: usize,
    /// Number of faults of each changed part that an explanation did not name.
    missed: BTreeMap<String, usize>,
}

impl Score {
    /// Creates a score without changes.
    pub const fn new(system: &'static str) -> Self {
        Self { system, changes: 0, faults: 0, missed: BTreeMap::new() }
    }

    /// Counts a change that leaves the interrupt working.
    pub fn add_harmless(&mut self) {
        self.changes += 1;
    }

    /// Counts a change that stops the interrupt. The explanation names it if a line that the
    /// explanation of the working system lacks contains one of the words. The first word is the
    /// name of the changed part.
    pub fn add_fault(&mut self, words: &[&str], [working, broken]: [&str; 2]) {
        self.changes += 1;
        self.faults += 1;
        let known: Vec<_> = working.lines().collect();
        let mut fresh = broken.lines().filter(|line| !known.contains(line));
        if !fresh.any(|line| words.iter().any(|word| line.contains(word))) {
            *self.missed.entry(words[0].to_owned()).or_default() += 1;
            println!("not named: {}\n{broken}", words[0]);
        }
    }

    /// Checks that the guide's table states this score.
    ///
    /// # Panics
    /// Panics if the guide cannot be read or has no such row.
    pub fn check(&self) {
        let Self { system, changes, faults, missed } = self;
        let named = faults - missed.values().sum::<usize>();
        let missed: Vec<_> =
            missed.iter().map(|(part, count)| format!("{part}: {count}")).collect();
        let missed = if missed.is_empty() { "none".to_owned() } else { missed.join(", ") };
        check_guide_row(&format!("| {system} | {changes} | {faults} | {named} | {missed} |"));
    }
}

/// Returns values with which a test replaces a field of `bits` bits: each differs from `value` in
/// one bit, is an extreme value, or is random. Equal arguments give equal values.
pub fn other_values(value: u64, bits: u32) -> Vec<u64> {
    let mask = u64::MAX >> (64 - bits);
    let mut seed = value ^ u64::from(bits);
    // Steele et al., "Fast splittable pseudorandom number generators", 2014 (SplitMix64).
    let random = std::iter::repeat_with(|| {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    });
    let flipped = (0..bits).map(|bit| value ^ 1 << bit);
    let extremes = [0, u64::MAX, value & u64::from(u32::MAX), value + 1];
    let mut values: Vec<_> =
        flipped.chain(extremes).chain(random.take(4)).map(|other| other & mask).collect();
    values.sort_unstable();
    values.dedup();
    values.retain(|other| *other != value);
    values
}
