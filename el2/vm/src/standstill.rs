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
use spin::Mutex;

/// The gate between the hypervisor and the guest.
#[derive(Debug)]
pub(crate) struct Gate {
    closed: AtomicBool,
    inside: Box<[AtomicBool]>,
    one_at_a_time: Mutex<()>,
}

impl Gate {
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            closed: AtomicBool::new(false),
            inside: (0..cpus).map(|_| AtomicBool::new(false)).collect(),
            one_at_a_time: Mutex::new(()),
        }
    }

    /// Announces that the vCPU is about to fill its list registers. Waits while the gate is closed.
    pub(crate) fn enter(&self, cpu: Cpu) {
        let Some(inside) = self.inside.get(cpu.index()) else { return };
        loop {
            inside.store(true, SeqCst);
            if !self.closed.load(SeqCst) {
                return;
            }
            inside.store(false, SeqCst);
            while self.closed.load(SeqCst) {
                spin_loop();
            }
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

    /// Runs `work` while no vCPU is inside. The calling vCPU must not be inside. `kick` must make a
    /// vCPU leave the guest.
    pub(crate) fn while_empty<R>(&self, kick: impl Fn(Cpu), work: impl FnOnce() -> R) -> R {
        let _turn = self.one_at_a_time.lock();
        self.closed.store(true, SeqCst);
        for (cpu, inside) in (0..).map(Cpu::new).zip(&self.inside) {
            if inside.load(SeqCst) {
                kick(cpu);
            }
            while inside.load(SeqCst) {
                spin_loop();
            }
        }
        let result = work();
        self.closed.store(false, SeqCst);
        result
    }
}
