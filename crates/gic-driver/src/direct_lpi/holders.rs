//! At which redistributors an LPI may be pending.

use msi_types::Cpu;

/// CPUs that can be told apart.
const PLACES: u32 = u64::BITS;

/// A set of CPUs, never too small: CPUs whose numbers are alike modulo 64 stand for each other, so that machines of
/// up to 64 have it exact, and larger ones invalidate a little more than they need.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Holders(u64);

impl Holders {
    /// No CPU.
    pub(super) const NONE: Self = Self(0);

    /// One CPU.
    pub(super) const fn only(cpu: Cpu) -> Self {
        Self(1 << (cpu.get() % PLACES))
    }

    /// With one more.
    pub(super) const fn with(self, cpu: Cpu) -> Self {
        Self(self.0 | Self::only(cpu).0)
    }

    /// Without one, if `cpus` CPUs are few enough to tell it from all others.
    pub(super) const fn without(self, cpu: Cpu, cpus: usize) -> Self {
        if cpus <= PLACES as usize { Self(self.0 & !Self::only(cpu).0) } else { self }
    }

    /// Those that are in either.
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are in both.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn contains(self, cpu: Cpu) -> bool {
        self.0 & Self::only(cpu).0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cpu_that_was_added_is_there_until_it_is_taken_out(
            cpus in prop::collection::btree_set(0u32..200, 1..20),
            out in any::<u32>(),
            machine in 1u32..200,
        ) {
            let out = out % machine;
            let (first, others) = (*cpus.first().unwrap(), cpus.iter().copied());
            let all = others.fold(Holders::only(Cpu::new(first)), |set, cpu| set.with(Cpu::new(cpu)));
            let rest = all.without(Cpu::new(out), machine as usize);
            for cpu in cpus.iter().filter(|cpu| **cpu < machine) {
                prop_assert!(all.contains(Cpu::new(*cpu)));
                prop_assert!(*cpu == out || rest.contains(Cpu::new(*cpu)), "{cpu} left with {out}");
            }
        }

        #[test]
        fn few_cpus_are_told_apart(cpu in 0u32..64, other in 0u32..64) {
            let set = Holders::only(Cpu::new(cpu));
            prop_assert_eq!(set.contains(Cpu::new(other)), cpu == other);
            prop_assert!(!set.without(Cpu::new(cpu), 64).contains(Cpu::new(cpu)));
        }
    }
}
