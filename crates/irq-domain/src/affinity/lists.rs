//! CPU lists with preallocated memory: the online CPUs, and the candidates for an interrupt.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use msi_types::Cpu;

/// The online CPUs.
pub(crate) struct Hotplug {
    /// The online CPUs, in ascending order.
    pub(crate) online: Vec<Cpu>,
    pub(crate) room: Candidates,
}

impl Hotplug {
    /// Creates a list with only the boot CPU, and room for all CPUs.
    pub(crate) fn try_new(cpus: usize, boot_cpu: Cpu) -> Result<Self, TryReserveError> {
        let mut online = Vec::new();
        online.try_reserve_exact(cpus)?;
        online.push(boot_cpu);
        Ok(Self { online, room: Candidates::try_new(cpus)? })
    }

    pub(crate) fn insert(&mut self, cpu: Cpu) {
        if let Err(index) = self.online.binary_search(&cpu) {
            self.online.insert(index, cpu);
        }
    }

    pub(crate) fn remove(&mut self, cpu: Cpu) {
        self.online.retain(|other| *other != cpu);
    }
}

/// Preallocated memory for a list of candidate CPUs, and for each CPU's number of managed
/// interrupts.
pub(crate) struct Candidates {
    pub(crate) cpus: Vec<Cpu>,
    pub(crate) load: Vec<u32>,
}

impl Candidates {
    pub(crate) fn try_new(cpus: usize) -> Result<Self, TryReserveError> {
        let mut list = Vec::new();
        list.try_reserve_exact(cpus)?;
        Ok(Self { cpus: list, load: try_collect((0..cpus).map(|_| 0))? })
    }

    /// Returns the online CPUs of `among`, the one with the fewest managed interrupts first.
    /// `managed` yields the target of each managed interrupt.
    pub(crate) fn least_managed(
        &mut self,
        among: &[Cpu],
        online: &[Cpu],
        managed: impl Iterator<Item = Cpu>,
    ) -> &[Cpu] {
        let Self { cpus, load } = self;
        load.fill(0);
        for target in managed {
            if let Some(load) = load.get_mut(target.index()) {
                *load += 1;
            }
        }
        cpus.clear();
        for cpu in among {
            if online.contains(cpu) && !cpus.contains(cpu) {
                let load_of = |cpu: &Cpu| load.get(cpu.index()).copied();
                let at = cpus.partition_point(|other| load_of(other) <= load_of(cpu));
                cpus.insert(at, *cpu);
            }
        }
        cpus
    }

    /// Fills the list with those CPUs of `among` that are online.
    pub(crate) fn fill(&mut self, online: &[Cpu], among: &[Cpu]) {
        self.cpus.clear();
        self.cpus.extend(online.iter().filter(|cpu| among.contains(cpu)));
    }
}
