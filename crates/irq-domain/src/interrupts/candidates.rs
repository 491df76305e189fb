//! CPUs to try for an interrupt, best first, in room that was reserved.

use super::Interrupts;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use msi_types::Cpu;

/// Room for a list of CPUs, and for a count by CPU.
pub(crate) struct Candidates {
    cpus: Vec<Cpu>,
    load: Vec<u32>,
}

impl Candidates {
    pub(crate) fn try_new(cpus: usize) -> Result<Self, TryReserveError> {
        let mut list = Vec::new();
        list.try_reserve_exact(cpus)?;
        Ok(Self { cpus: list, load: try_collect((0..cpus).map(|_| 0))? })
    }

    /// The CPUs on line that are among these.
    pub(super) fn fill(&mut self, online: &[Cpu], among: &[Cpu]) {
        self.cpus.clear();
        self.cpus.extend(online.iter().filter(|cpu| among.contains(cpu)));
    }
}

impl Interrupts {
    /// The candidates, the policy's choice first.
    pub(super) fn preferred<'a>(&self, Candidates { cpus, .. }: &'a mut Candidates) -> &'a [Cpu] {
        if !cpus.is_empty() {
            let chosen = self.policy().choose(cpus);
            let before = cpus.iter().position(|cpu| *cpu == chosen);
            if let Some(up_to_it) = before.and_then(|before| cpus.get_mut(..=before)) {
                up_to_it.rotate_right(1);
            }
        }
        cpus
    }

    /// Those of `among` that are on line, the one with the fewest managed interrupts first.
    pub(crate) fn least_managed<'a>(
        &self,
        among: &[Cpu],
        online: &[Cpu],
        Candidates { cpus, load }: &'a mut Candidates,
    ) -> &'a [Cpu] {
        load.fill(0);
        for descriptor in
            self.numbers.lock(self.host()).iter().filter(|other| other.among.is_some())
        {
            if let Some(load) = load.get_mut(descriptor.target().index()) {
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
}
