//! The redistributors that may hold an LPI.

use msi_types::Cpu;

/// CPUs that a vector left, at each of which it may still be pending.
const PREVIOUS: usize = 3;

/// The CPUs that an LPI's message named before: few, so that masking costs the same on machines of
/// every size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct PreviousTargets([Option<Cpu>; PREVIOUS]);

impl PreviousTargets {
    /// `true` if one more finds room.
    pub(super) fn has_room_for(self, cpu: Cpu) -> bool {
        self.contains(cpu) || self.0.contains(&None)
    }

    /// Adds a CPU that [has room](Self::has_room_for).
    pub(super) fn add(&mut self, cpu: Cpu) {
        if !self.contains(cpu)
            && let Some(room) = self.0.iter_mut().find(|entry| entry.is_none())
        {
            *room = Some(cpu);
        }
    }

    pub(super) fn remove(&mut self, cpu: Cpu) {
        self.0 = self.0.map(|entry| entry.filter(|other| *other != cpu));
    }

    pub(super) fn contains(self, cpu: Cpu) -> bool {
        self.0.contains(&Some(cpu))
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Cpu> {
        self.0.into_iter().flatten()
    }
}

/// Redistributors at which an LPI may be pending, and whose copies of its configuration count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CachedAt {
    ends: [Option<Cpu>; 2],
    previous: PreviousTargets,
}

impl CachedAt {
    /// The redistributors of these CPUs, each once.
    pub(super) fn new(target: Cpu, moving: Option<Cpu>, mut previous: PreviousTargets) -> Self {
        let ends = [Some(target), moving.filter(|cpu| *cpu != target)];
        ends.into_iter().flatten().for_each(|cpu| previous.remove(cpu));
        Self { ends, previous }
    }

    /// Those for which `keep` says so.
    pub(super) fn filter(self, keep: impl Fn(Cpu) -> bool) -> Self {
        let filter = |cpu: Option<Cpu>| cpu.filter(|cpu| keep(*cpu));
        Self { ends: self.ends.map(filter), previous: PreviousTargets(self.previous.0.map(filter)) }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Cpu> {
        self.ends.into_iter().flatten().chain(self.previous.iter())
    }

    pub(super) fn contains(self, cpu: Cpu) -> bool {
        self.iter().any(|other| other == cpu)
    }

    pub(super) fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }
}
