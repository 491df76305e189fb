//! Keeps a guest's vCPUs out of guest mode temporarily. As long as none of a guest's vCPUs executes
//! guest code, the model knows the contents of their list registers.
//!
//! A vCPU that enters the guest, and a vCPU that reads registers, holds the guest's
//! [lock](crate::fair_lock). So no vCPU enters while another reads.

use alloc::boxed::Box;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use msi_types::Cpu;

/// The gate between the hypervisor and the guest.
#[derive(Debug)]
pub(crate) struct Gate {
    closed: AtomicBool,
    inside: Box<[AtomicBool]>,
}

impl Gate {
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            closed: AtomicBool::new(false),
            inside: (0..cpus).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Announces that the vCPU, which holds the guest's lock, is about to fill its list registers.
    pub(crate) fn enter(&self, cpu: Cpu) {
        if let Some(inside) = self.inside.get(cpu.index()) {
            inside.store(true, SeqCst);
        }
    }

    /// Returns `true` if vCPUs inside must leave.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Announces that the vCPU has folded its list registers.
    pub(crate) fn leave(&self, cpu: Cpu) {
        if let Some(inside) = self.inside.get(cpu.index()) {
            inside.store(false, SeqCst);
        }
    }

    /// Runs `work` while no vCPU is inside. The calling vCPU must hold the guest's lock, and must
    /// not be inside; during a move, no vCPU is loaded. `kick` must make a vCPU leave the guest.
    pub(crate) fn while_empty<R>(&self, kick: impl Fn(Cpu), work: impl FnOnce() -> R) -> R {
        self.closed.store(true, SeqCst);
        // All leave at the same time, so the wait is as long as the longest of their exits.
        for (cpu, inside) in (0..).map(Cpu::new).zip(&self.inside) {
            if inside.load(SeqCst) {
                kick(cpu);
            }
        }
        for inside in &self.inside {
            while inside.load(SeqCst) {
                spin_loop();
            }
        }
        let result = work();
        self.closed.store(false, SeqCst);
        result
    }
}
