//! Cleans up former vectors, and handles CPU hotplug.

use super::irq_data::{PENDING, Phase, RELEASED};
use super::{Core, CpuError, VectorDomain};
use crate::apic::{ApicId, ApicVector, CpuVector};
use core::sync::atomic::Ordering;
use msi_types::Cpu;

/// Result of a clean-up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "a former vector that is still requested needs another call"]
pub enum Cleanup {
    /// No clean-up is left to do on this CPU until the next
    /// [request](crate::Apic::request_cleanup).
    Done,
    /// An interrupt is still pending at a former vector. Call again after the CPU has served it,
    /// for example at the next tick.
    Again,
}

/// Interrupts found at a CPU that went offline.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub struct Offline {
    /// Number of interrupts that were pending at this CPU and were sent again to their current
    /// targets.
    pub resent: u32,
    /// Number of interrupts that still target the CPU. These interrupts are not delivered until
    /// they are moved, or until the CPU is online again.
    pub stranded: u32,
}

/// Relation of a vector to its hwirq.
enum VectorRole {
    Present,
    /// The vector is a former vector of the hwirq. The flag is `true` if the vector may be freed.
    Former(bool),
    /// The hwirq does not use the vector, or the vector must never be freed.
    Other,
}

impl VectorDomain {
    /// Marks a CPU as online, with this APIC ID. The CPU's local APIC must be enabled. Interrupts
    /// that were held back because the CPU was offline are sent.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns [`CpuError`] if the CPU is unknown, or if another CPU has the APIC ID. An ID that
    /// the message format cannot encode is not an error: it only means that interrupts in this
    /// format can't use the CPU. Interrupts behind a remapping unit can still use it.
    pub fn online(&self, cpu: Cpu, id: ApicId) -> Result<(), CpuError> {
        self.with_core(|core| {
            let same = core.apic_ids.iter().position(|other| *other == Some(id));
            if let Some(of) = same.filter(|of| *of != cpu.index()) {
                let of = Cpu::new(u32::try_from(of).unwrap_or(u32::MAX));
                return Err(CpuError::DuplicateId { id, of });
            }
            *core.apic_ids.get_mut(cpu.index()).ok_or(CpuError::Unknown(cpu))? = Some(id);
            core.matrix.online(cpu).map_err(|_| CpuError::Unknown(cpu))?;
            for index in self.vectors_on(cpu).filter_map(|cpu_vector| self.entry_index(cpu_vector))
            {
                if let Some(irq) = self.irqs.get(index) {
                    self.send_pending(core, irq);
                }
            }
            Ok(())
        })
    }

    /// Marks a CPU as offline. The caller must run on the CPU itself with interrupts masked, and
    /// must already have moved the CPU's interrupts where possible. Interrupts that are pending in
    /// the CPU's local APIC are sent again to their current targets.
    ///
    /// Context: any.
    pub fn offline(&self, cpu: Cpu) -> Result<Offline, CpuError> {
        self.with_core(|core| {
            core.matrix.offline(cpu).map_err(|_| CpuError::Unknown(cpu))?;
            let mut left = Offline::default();
            for cpu_vector in self.vectors_on(cpu) {
                let Some(index) = self.entry_index(cpu_vector) else { continue };
                match self.role_of(core, index, cpu_vector) {
                    VectorRole::Present => left.stranded += 1,
                    VectorRole::Former(_) => {}
                    VectorRole::Other => continue,
                }
                // If we can't read the APIC, it's better to send an interrupt twice than to lose
                // it.
                let waits = self.apic().is_requested(cpu, cpu_vector.vector) != Some(false);
                left.resent += u32::from(waits && self.send_again(core, index));
                if let VectorRole::Former(_) = self.role_of(core, index, cpu_vector) {
                    self.give_up(core, index, cpu_vector);
                }
            }
            Ok(left)
        })
    }

    /// Frees the vectors of this CPU from which interrupts have moved. A vector is freed if its
    /// interrupt has arrived at the new vector and is not pending at the old one. The kernel must
    /// call this on the CPU itself after each [`Apic::request_cleanup`].
    ///
    /// Context: any.
    ///
    /// [`Apic::request_cleanup`]: crate::Apic::request_cleanup
    pub fn clean_up(&self, cpu: Cpu) -> Cleanup {
        self.with_core(|core| {
            let mut result = Cleanup::Done;
            for cpu_vector in self.vectors_on(cpu) {
                let Some(index) = self.entry_index(cpu_vector) else { continue };
                if let VectorRole::Former(true) = self.role_of(core, index, cpu_vector) {
                    let gone = !core.matrix.is_online(cpu);
                    if gone || self.apic().is_requested(cpu, cpu_vector.vector) == Some(false) {
                        self.give_up(core, index, cpu_vector);
                    } else {
                        result = Cleanup::Again;
                    }
                }
            }
            result
        })
    }

    /// Requests clean-up of these vectors from their CPUs; vectors of offline CPUs are freed
    /// immediately. The caller must not hold the lock.
    pub(super) fn clean_up_later(&self, cpu_vectors: impl IntoIterator<Item = CpuVector>) {
        let mut last = None;
        for cpu_vector in cpu_vectors {
            if self.with_core(|core| core.matrix.is_online(cpu_vector.cpu)) {
                if last.replace(cpu_vector.cpu) != Some(cpu_vector.cpu) {
                    self.apic().request_cleanup(cpu_vector.cpu);
                }
            } else {
                self.with_core(|core| {
                    if let Some(index) = self.entry_index(cpu_vector)
                        && let VectorRole::Former(_) = self.role_of(core, index, cpu_vector)
                    {
                        self.give_up(core, index, cpu_vector);
                    }
                });
            }
        }
    }

    fn vectors_on(&self, cpu: Cpu) -> impl Iterator<Item = CpuVector> {
        self.window.0.up_to(self.window.1).map(move |vector: ApicVector| CpuVector { cpu, vector })
    }

    fn role_of(&self, core: &Core, index: usize, cpu_vector: CpuVector) -> VectorRole {
        let Some((irq, state)) = self.irqs.get(index).zip(core.irqs.get(index)) else {
            return VectorRole::Other;
        };
        if irq.cpu_vector() == Some(cpu_vector) {
            return VectorRole::Present;
        }
        let former = irq.former().any(|former| former == cpu_vector);
        match state.phase {
            Phase::Owned { .. } if former => {
                VectorRole::Former(state.impatient || !irq.awaits_arrival())
            }
            Phase::Draining if former => VectorRole::Former(true),
            _ => VectorRole::Other,
        }
    }

    /// Frees a former vector.
    fn give_up(&self, core: &mut Core, index: usize, cpu_vector: CpuVector) {
        self.set_entry(cpu_vector, None);
        core.release(cpu_vector);
        let Some((irq, state)) = self.irqs.get(index).zip(core.irqs.get_mut(index)) else {
            return;
        };
        irq.remove_former(cpu_vector);
        if irq.former().next().is_none() {
            state.impatient = false;
            if state.phase == Phase::Draining {
                state.phase = Phase::Free;
                core.free.give_back(index);
            }
        }
    }

    /// Sends an interrupt again. Returns `false` if the hwirq was freed, or if the interrupt cannot
    /// be sent yet.
    fn send_again(&self, core: &Core, index: usize) -> bool {
        let Some(irq) = self.irqs.get(index) else { return false };
        let set = |flags| (flags & RELEASED == 0).then_some(flags | PENDING);
        irq.flags.fetch_update(Ordering::SeqCst, Ordering::SeqCst, set).is_ok()
            && self.send_pending(core, irq)
    }
}
