//! Moments when no vCPU of a guest executes guest code: what is in list registers is then known.
//!
//! A vCPU first says that it is inside, then looks at the gate. One that reads registers first
//! closes the gate, then looks for vCPUs inside. One of the two sees what the other did.

use crate::interrupts;
use alloc::boxed::Box;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use gic_arch::{IntIdField, gicd, gicr};
use msi_types::Cpu;
use spin::Mutex;
use vgic::{Block, Vgic};

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

    /// The vCPU is about to fill its list registers. Waits while the gate is closed.
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

    /// The vCPU has folded its list registers.
    pub(crate) fn leave(&self, cpu: Cpu) {
        if let Some(inside) = self.inside.get(cpu.index()) {
            inside.store(false, SeqCst);
        }
    }

    /// Does `work` while no vCPU is inside. The caller's has left.
    pub(crate) fn while_empty<R>(&self, work: impl FnOnce() -> R) -> R {
        let _turn = self.one_at_a_time.lock();
        self.closed.store(true, SeqCst);
        for (cpu, inside) in (0..).map(Cpu::new).zip(&self.inside) {
            if inside.load(SeqCst) {
                interrupts::kick(cpu);
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

/// Registers that show the pending or active state of interrupts which may be in list registers
/// ([`ListRegisterVcpu`](vgic::ListRegisterVcpu)).
const SHOW_STATE: [&[IntIdField]; 2] = [
    &[gicd::ISPENDR, gicd::ICPENDR, gicd::ISACTIVER, gicd::ICACTIVER],
    &[gicr::ISPENDR, gicr::ICPENDR, gicr::ISACTIVER, gicr::ICACTIVER],
];

/// Does a read there show the state of what may be in list registers?
pub(crate) fn shows_state(vgic: &Vgic, address: u64) -> bool {
    let region = vgic.regions().iter().find(|region| region.addresses.contains(&address));
    let Some(region) = region else { return false };
    let offset = address - region.addresses.start;
    let (fields, offset) = match region.block {
        Block::Distributor => (SHOW_STATE[0], offset),
        Block::Redistributors(index) => {
            (SHOW_STATE[1], offset % vgic.config().redistributors[index].stride)
        }
        _ => return false,
    };
    let register = offset as u32 & !3;
    fields.iter().any(|field| field.fields_at(register).is_some())
}
