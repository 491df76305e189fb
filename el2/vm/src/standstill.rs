//! Keeps a guest's vCPUs out of guest mode temporarily. As long as none of a guest's vCPUs executes
//! guest code, the model knows the contents of their list registers.
//!
//! A vCPU that enters the guest first announces that it is inside, and then checks the gate. A vCPU
//! that reads registers first closes the gate, and then checks for vCPUs inside. So either the
//! entering vCPU sees the closed gate, or the reader sees the vCPU inside.

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

    /// Announces that the vCPU is about to fill its list registers. Returns `false` if the gate is
    /// closed; the vCPU must then try again.
    pub(crate) fn enter(&self, cpu: Cpu) -> bool {
        let Some(inside) = self.inside.get(cpu.index()) else { return false };
        inside.store(true, SeqCst);
        let is_open = !self.closed.load(SeqCst);
        if !is_open {
            inside.store(false, SeqCst);
        }
        is_open
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

    /// Runs `work` while no vCPU is inside. The calling vCPU must hold the guest's
    /// [lock](crate::fair_lock), and must not be inside; during a move, no vCPU is loaded. `kick`
    /// must make a vCPU leave the guest.
    pub(crate) fn while_empty<R>(&self, kick: impl Fn(Cpu), work: impl FnOnce() -> R) -> R {
        self.closed.store(true, SeqCst);
        let inside = || (0..).map(Cpu::new).zip(&self.inside);
        // All leave at the same time, so the wait is as long as the longest of their exits.
        inside().filter(|(_, is_inside)| is_inside.load(SeqCst)).for_each(|(cpu, _)| kick(cpu));
        for (_, is_inside) in inside() {
            while is_inside.load(SeqCst) {
                spin_loop();
            }
        }
        let result = work();
        self.closed.store(false, SeqCst);
        result
    }
}
