//! The kernel side of an x86 machine: the services that drivers need, and the trap entry.

use super::local_apics::LocalApicBank;
use crate::platform::{Executing, MachinePlatform};
use crate::ram::{Publication, Ram};
use irq_domain::{Dispatched, Host, Interrupts};
use msi_types::{Cpu, TaskContext};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use x86_irq::remapping::RemapMemory;
use x86_irq::{Apic, ApicId, ApicVector, Arrival, Cleanup, IrqState, LocalCpu, VectorDomain};

/// The kernel services that the vector domain uses.
pub struct X86Kernel {
    apics: Arc<LocalApicBank>,
    platform: Arc<MachinePlatform>,
    /// For each CPU, whether the CPU has been asked to clean up former vectors.
    cleanups: Box<[AtomicBool]>,
    /// Number of interrupts that arrived without a handler.
    strays: AtomicU64,
}

impl X86Kernel {
    /// Creates a kernel running on the CPUs of `apics`.
    pub fn new(apics: Arc<LocalApicBank>, platform: Arc<MachinePlatform>) -> Self {
        let cleanups = apics.cpus().map(|_| AtomicBool::new(false)).collect();
        Self { apics, platform, cleanups, strays: AtomicU64::new(0) }
    }

    /// Takes one interrupt trap. Returns `false` if no interrupt was pending.
    pub fn take_one(&self, domain: &VectorDomain, interrupts: &Interrupts, cpu: Cpu) -> bool {
        let _executing = Executing::in_exception(cpu);
        let Some(vector) = self.apics.acknowledge(cpu) else { return false };
        let arrival =
            ApicVector::new(vector).map_or(Arrival::Unknown, |vector| domain.arrive(cpu, vector));
        let handled = match arrival {
            Arrival::Deliver(slot) => {
                !matches!(interrupts.dispatch(cpu, slot), Dispatched::Unhandled(_))
            }
            Arrival::Held | Arrival::Released => true,
            Arrival::Unknown => false,
        };
        if !handled {
            self.strays.fetch_add(1, Ordering::Relaxed);
        }
        self.apics.end(cpu);
        self.platform.may_wait()
    }

    /// Runs a tick, in which the CPU cleans up former vectors if it has been asked to. Returns
    /// `true` if the CPU had been asked to.
    pub fn clean_up(&self, domain: &VectorDomain, cpu: Cpu) -> bool {
        let asked =
            self.cleanups.get(cpu.index()).is_some_and(|asked| asked.swap(false, Ordering::AcqRel));
        if asked {
            let _executing = Executing::in_exception(cpu);
            if domain.clean_up(cpu) == Cleanup::Again {
                self.request_cleanup(cpu);
            }
        }
        asked
    }

    /// Returns the number of interrupts that arrived without a handler.
    pub fn strays(&self) -> u64 {
        self.strays.load(Ordering::Relaxed)
    }
}

impl LocalCpu for X86Kernel {
    fn irq_save(&self) -> IrqState {
        self.platform.irq_save()
    }

    fn irq_restore(&self, state: IrqState) {
        self.platform.irq_restore(state);
    }

    fn relax(&self) {
        self.platform.relax();
    }

    fn yield_now(&self) {
        self.platform.yield_now();
    }
}

impl Apic for X86Kernel {
    fn send(&self, to: ApicId, vector: ApicVector) {
        let cpu = self.apics.cpus().find(|cpu| LocalApicBank::id(*cpu) == to.get());
        if let Some(cpu) = cpu {
            self.apics.request(cpu, vector.get());
        }
    }

    fn is_requested(&self, cpu: Cpu, vector: ApicVector) -> Option<bool> {
        let here = self.platform.current_cpu() == Some(cpu);
        here.then(|| self.apics.is_requested(cpu, vector.get()))
    }

    fn request_cleanup(&self, cpu: Cpu) {
        if let Some(asked) = self.cleanups.get(cpu.index()) {
            asked.store(true, Ordering::Release);
        }
    }
}

msi_types::debug_by!(X86Kernel as "X86Kernel", |it| {apics: it.apics});

/// Memory for a remapping table. The memory is in RAM, and the remapping unit does not snoop the
/// CPU caches.
#[derive(Debug)]
pub struct RemapTableMemory {
    ram: Arc<Ram>,
    base: u64,
}

impl RemapTableMemory {
    /// Creates a table at `base`.
    pub const fn new(ram: Arc<Ram>, base: u64) -> Self {
        Self { ram, base }
    }

    fn cpu_vector(&self, word: u32) -> u64 {
        self.base + u64::from(word) * 8
    }
}

impl RemapMemory for RemapTableMemory {
    fn read(&self, word: u32) -> u64 {
        self.ram.cpu_load64(self.cpu_vector(word))
    }

    fn write(&self, word: u32, value: u64) {
        let at = self.cpu_vector(word);
        self.ram.cpu_store64(at, value);
        self.ram.publish(at..at + 8, Publication::Clean);
    }
}
