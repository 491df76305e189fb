//! Order of the CPUs to try for an interrupt, best first.

use super::Interrupts;
use crate::cpu_lists::Candidates;
use msi_types::Cpu;

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
