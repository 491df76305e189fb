//! Moves interrupts from one vector to another, in two phases.

use super::irq_data::{IrqData, MessageKeeper, Phase};
use super::{Core, VectorDomain};
use crate::apic::CpuVector;
use msi_types::{Cpu, HwIrq, MoveOutcome, MsiError, MsiMessage, Rewrite};

/// Error for an endpoint that cannot change its data together with its address. Its interrupt can
/// only move to the same vector on the new CPU.
const SAME_VECTOR_TAKEN: &str =
    "the same vector is taken there, and the endpoint cannot change address and data together";
/// Error for an interrupt with too many former vectors waiting for clean-up.
const TOO_OFTEN: &str = "the interrupt has too many former vectors that are not cleaned up yet";

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
        let takes_address = match fit.rewrite {
            Rewrite::LowWordOnly => old.address_high() == new.address_high(),
            Rewrite::Never => false,
            Rewrite::AddressOnly | Rewrite::Masked | Rewrite::Atomic64 => true,
        };
        let cpu_vector = match fit.rewrite {
            Rewrite::Masked | Rewrite::Atomic64 => core.vector_on(irq, aside, to)?,
            _ if takes_address => {
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
            Rewrite::AddressOnly | Rewrite::LowWordOnly | Rewrite::Never => {
                return Err(MsiError::WouldTear);
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
