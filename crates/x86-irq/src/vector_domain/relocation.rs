//! Moves interrupts from one vector to another, in two phases, cleans up former vectors, and
//! handles CPU hotplug.

use super::{Core, CpuError, IrqData, MessageKeeper, Phase, VectorDomain};
use crate::message::{ApicId, ApicVector, CpuVector};
use msi_types::{Cpu, HwIrq, MoveOutcome, MsiError, MsiMessage, Rewrite};

/// Error for an endpoint that cannot change its data together with its address. Its interrupt can
/// only move to the same vector on the new CPU.
const SAME_VECTOR_TAKEN: &str =
    "the same vector is taken there, and the endpoint cannot change address and data together";
/// Error for an interrupt with too many former vectors waiting for clean-up.
const TOO_OFTEN: &str = "the interrupt has too many former vectors that are not cleaned up yet";

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

/// A move that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VectorMove {
    pub(crate) from: CpuVector,
    pub(crate) to: CpuVector,
    /// Message for the endpoint, or `None` if the endpoint need not be changed.
    pub(crate) message: Option<MsiMessage>,
}

/// A requested move.
struct Step {
    from: CpuVector,
    to: Cpu,
    message: MessageKeeper,
    aside: Aside,
}

/// Reservation of a vector for the interrupt at its new CPU.
#[derive(Clone, Copy)]
enum Aside {
    /// The interrupt is not managed.
    No,
    Yes,
    /// The interrupt is managed for other CPUs.
    Elsewhere,
}

impl VectorDomain {
    /// Allocates a vector for the hwirq at its new CPU. From now on, interrupts that arrive at this
    /// vector belong to the hwirq.
    ///
    /// Context: task; may sleep.
    pub(crate) fn begin_vector_move(&self, hwirq: HwIrq, to: Cpu) -> Result<VectorMove, MsiError> {
        let unknown = MsiError::UnknownVector(hwirq);
        let (index, irq) = self.index(hwirq).zip(self.irq(hwirq)).ok_or(unknown)?;
        self.with_core(|core| {
            let state = core.irqs.get(index).ok_or(unknown)?;
            let Phase::Owned { message, .. } = state.phase else { return Err(unknown) };
            let aside = match &state.managed {
                None => Aside::No,
                Some(among) if among.contains(&to) => Aside::Yes,
                Some(_) => Aside::Elsewhere,
            };
            if state.moving.is_some() {
                return Err(MsiError::NotReachable(
                    to,
                    "another move of this interrupt is under way",
                ));
            }
            let from = irq.cpu_vector().ok_or(unknown)?;
            if from.cpu == to {
                return Ok(VectorMove { from, to: from, message: None });
            }
            if !irq.has_room() && !irq.former().any(|former| former.cpu == to) {
                return Err(MsiError::NotReachable(to, TOO_OFTEN));
            }
            let (cpu_vector, message) =
                self.choose_vector(core, irq, Step { from, to, message, aside })?;
            if let Some(state) = core.irqs.get_mut(index) {
                state.moving = Some(cpu_vector);
            }
            irq.await_arrival(Some(cpu_vector));
            self.set_entry(cpu_vector, Some(index));
            Ok(VectorMove { from, to: cpu_vector, message })
        })
    }

    fn choose_vector(
        &self,
        core: &mut Core,
        irq: &IrqData,
        Step { from, to, message, aside }: Step,
    ) -> Result<(CpuVector, Option<MsiMessage>), MsiError> {
        if !core.matrix.is_online(to) {
            return Err(MsiError::NotReachable(to, "it is offline"));
        }
        let MessageKeeper::Endpoint(fit) = message else {
            return Ok((core.vector_on(irq, aside, to)?, None));
        };
        let same = CpuVector { cpu: to, vector: from.vector };
        let (old, new) = (self.message_to(core, from)?, self.message_to(core, same)?);
        fit.check(new)?;
        let cpu_vector = match fit.rewrite {
            Rewrite::Masked | Rewrite::Atomic64 => core.vector_on(irq, aside, to)?,
            Rewrite::LowWordOnly if old.address_high() != new.address_high() => {
                return Err(MsiError::WouldTear);
            }
            Rewrite::Never => return Err(MsiError::WouldTear),
            Rewrite::AddressOnly | Rewrite::LowWordOnly => {
                if irq.former().any(|former| former == same) {
                    // The interrupt recently moved away from this vector and still owns it.
                    irq.remove_former(same);
                    same
                } else {
                    core.matrix
                        .take(same)
                        .map_err(|_| MsiError::NotReachable(to, SAME_VECTOR_TAKEN))?
                }
            }
        };
        Ok((cpu_vector, Some(self.message_to(core, cpu_vector)?)))
    }

    /// Ends a move, and records the vector that is no longer used as a former vector.
    ///
    /// Context: task; may sleep.
    pub(crate) fn end_vector_move(
        &self,
        hwirq: HwIrq,
        outcome: MoveOutcome,
    ) -> Result<(), MsiError> {
        let unknown = MsiError::UnknownVector(hwirq);
        let (index, irq) = self.index(hwirq).zip(self.irq(hwirq)).ok_or(unknown)?;
        let may_go = self.with_core(|core| {
            let state = core.irqs.get_mut(index).ok_or(unknown)?;
            let (Some(new), Some(old)) = (state.moving.take(), irq.cpu_vector()) else {
                return Err(unknown);
            };
            match outcome {
                MoveOutcome::Written => {
                    irq.set_cpu_vector(Some(new));
                    irq.add_former(old);
                    // The layer's invalidation has already drained the old vector. If an endpoint
                    // was rewritten instead, its earlier messages may still be in flight.
                    if let Phase::Owned { message: MessageKeeper::Nowhere, .. } = state.phase {
                        irq.await_arrival(None);
                    }
                }
                // The endpoint may have held the new message for a short time.
                MoveOutcome::RolledBack => {
                    irq.await_arrival(Some(old));
                    irq.add_former(new);
                }
            }
            state.impatient |= irq.is_crowded();
            let may_go = state.impatient || !irq.awaits_arrival();
            self.send_pending(core, irq);
            Ok(may_go)
        })?;
        let of_cpu_off_line =
            |cpu_vector: &CpuVector| !self.with_core(|core| core.matrix.is_online(cpu_vector.cpu));
        self.clean_up_later(
            irq.former().filter(|cpu_vector| may_go || of_cpu_off_line(cpu_vector)),
        );
        Ok(())
    }

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
                let sends = |irq| self.send_again(core, irq);
                left.resent += u32::from(waits && self.irqs.get(index).is_some_and(sends));
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
}

impl Core {
    /// Returns any vector on CPU `to`: one of the interrupt's former vectors that is not yet freed,
    /// or else a new one. For a managed interrupt, the new vector is a reserved one.
    fn vector_on(&mut self, irq: &IrqData, aside: Aside, to: Cpu) -> Result<CpuVector, MsiError> {
        if let Aside::Elsewhere = aside {
            return Err(MsiError::NotReachable(to, "the interrupt is managed for other CPUs"));
        }
        if let Some(left) = irq.former().find(|cpu_vector| cpu_vector.cpu == to) {
            irq.remove_former(left);
            return Ok(left);
        }
        let taken = match aside {
            Aside::Yes | Aside::Elsewhere => self.matrix.allocate_managed(to),
            Aside::No => self.matrix.allocate(to),
        };
        taken.map_err(|_| MsiError::NotReachable(to, "its vectors are taken"))
    }
}
