//! Lists of CPUs in room that was reserved: those on line, and those to try for an interrupt.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use msi_types::Cpu;

/// The CPUs that interrupts may be sent to.
pub(crate) struct Hotplug {
    /// Ascending.
    pub(crate) online: Vec<Cpu>,
    pub(crate) room: Candidates,
}

impl Hotplug {
    /// With the boot CPU, and room for all.
    pub(crate) fn try_new(cpus: usize) -> Result<Self, TryReserveError> {
        let mut online = try_collect((0..).map(Cpu::new).take(cpus))?;
        online.truncate(1);
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

/// Room for a list of CPUs, and for a count by CPU.
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

    /// The CPUs on line that are among these.
    pub(crate) fn fill(&mut self, online: &[Cpu], among: &[Cpu]) {
        self.cpus.clear();
        self.cpus.extend(online.iter().filter(|cpu| among.contains(cpu)));
    }
}
