//! Sets of CPUs whose redistributors may have an LPI pending without the driver's knowledge.

use msi_types::Cpu;

/// CPUs that can be told apart.
const BITS: u32 = u64::BITS;

/// A set of CPUs that is never too small. CPUs whose numbers are equal modulo 64 stand for each
/// other. Machines of up to 64 CPUs have it exact; larger ones clear an LPI at a few more
/// redistributors than needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct CpuSet(u64);

impl CpuSet {
    /// No CPU.
    pub(super) const NONE: Self = Self(0);
    /// Every CPU.
    pub(super) const ALL: Self = Self(u64::MAX);

    /// With one more.
    pub(super) const fn with(self, cpu: Cpu) -> Self {
        Self(self.0 | Self::only(cpu).0)
    }

    /// Without one, if `cpus` CPUs are few enough to tell it from all others.
    pub(super) const fn without(self, cpu: Cpu, cpus: usize) -> Self {
        if cpus <= BITS as usize { Self(self.0 & !Self::only(cpu).0) } else { self }
    }

    /// The CPUs of either set.
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `true` if it has this CPU.
    pub(super) const fn contains(self, cpu: Cpu) -> bool {
        self.0 & Self::only(cpu).0 != 0
    }

    const fn only(cpu: Cpu) -> Self {
        Self(1 << (cpu.get() % BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cpu_set_holds_a_cpu_until_removed(
            cpus in prop::collection::btree_set(0u32..200, 1..20),
            out in any::<u32>(),
            machine in 1u32..200,
        ) {
            let out = out % machine;
            let all = cpus.iter().fold(CpuSet::NONE, |set, cpu| set.with(Cpu::new(*cpu)));
            let rest = all.without(Cpu::new(out), machine as usize);
            for cpu in cpus.iter().filter(|cpu| **cpu < machine) {
                prop_assert!(all.contains(Cpu::new(*cpu)) && CpuSet::ALL.contains(Cpu::new(*cpu)));
                prop_assert!(*cpu == out || rest.contains(Cpu::new(*cpu)), "{cpu} left with {out}");
            }
        }

        #[test]
        fn few_cpus_are_told_apart(cpu in 0u32..64, other in 0u32..64) {
            let set = CpuSet::NONE.with(Cpu::new(cpu));
            prop_assert_eq!(set.contains(Cpu::new(other)), cpu == other);
            prop_assert_eq!(set.without(Cpu::new(cpu), 64), CpuSet::NONE);
        }
    }
}
