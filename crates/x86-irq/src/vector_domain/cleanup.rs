//! Vectors that were left, and CPUs that come and go.

use super::irq_data::{PENDING, Phase, RELEASED};
use super::{Core, CpuError, VectorDomain};
use crate::apic::{ApicId, ApicVector, CpuVector};
use core::sync::atomic::Ordering;
use msi_types::Cpu;

/// Result of a clean-up: whether former vectors are left.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "a cpu_vector that is still requested is cleaned up by another call"]
pub enum Cleanup {
    /// No vector is left until the next [request](crate::Apic::request_cleanup).
    Done,
    /// An interrupt waits to be taken at a vector that was left: once that happened, at the next
    /// tick say, call again.
    Again,
}

/// Vectors that a CPU left behind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Offline {
    /// Interrupts that waited at this CPU and were sent again to where they belong now.
    pub resent: u32,
    /// Interrupts that still belong to it. They are not delivered until they are moved, or the CPU
    /// is back.
    pub stranded: u32,
}

/// Relation of a vector to its hwirq.
enum VectorRole {
    Present,
    /// It was left; `true` if it may be given up.
    Former(bool),
    /// Nobody's, or not to be touched.
    Other,
}

impl VectorDomain {
    /// Marks a CPU as online, with this APIC. Its local APIC must be on. Interrupts that were to be
    /// sent to the CPU in the meantime are sent.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`CpuError`]. An APIC that the message format cannot name is no error: interrupts that need
    /// messages are refused there, others (a remapping unit's) are not.
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

    /// Marks a CPU as offline. Must be called on the CPU itself with interrupts masked, after its
    /// interrupts were moved where possible. Interrupts that are pending in its APIC are sent again
    /// to their current targets.
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
                // Sends twice rather than never if the APIC cannot be asked.
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
    /// interrupt has arrived at the new vector and is not pending at the old one. Must be called on
    /// the CPU itself after [`Apic::request_cleanup`] asked for it.
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

    /// Asks the CPUs of these vectors to clean up; those off line have nothing to wait for. Not
    /// under the lock.
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

    /// The vector is free for others.
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

    /// True if it was sent: not if it was freed, or cannot be sent yet.
    fn send_again(&self, core: &Core, index: usize) -> bool {
        let Some(irq) = self.irqs.get(index) else { return false };
        let set = |flags| (flags & RELEASED == 0).then_some(flags | PENDING);
        irq.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, set).is_ok()
            && self.send_pending(core, irq)
    }
}
