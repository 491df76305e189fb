//! Allocates and frees vectors.

use super::{
    AttachmentId, Core, FreedVectors, HELD, IrqData, IrqDataLocked, MessageKeeper, Phase, RELEASED,
    VectorDomain, number,
};
use crate::matrix::{MatrixError, VectorMatrix};
use crate::message::CpuVector;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use msi_types::{
    Attachment, BlockRequest, Cpu, Fit, HwIrq, HwIrqBlock, Initially, MsiError, Rewrite,
};

impl VectorDomain {
    /// Allocates the hwirqs for `request`: either all of them or none. Each hwirq has a vector on
    /// the request's CPU; a managed hwirq also has a list of CPUs.
    ///
    /// Context: task; may sleep.
    pub(crate) fn allocate_block(
        &self,
        device: &Attachment,
        request: &BlockRequest,
        message: MessageKeeper,
        mut managed: Vec<Vec<Cpu>>,
    ) -> Result<HwIrqBlock, MsiError> {
        let count = request.count.get();
        let attachment = self.quotas.with(self.apic(), |quotas| quotas.charge(device, count))?;
        let phase = Phase::Owned { attachment, message };
        let allocated = self.with_core(|core| {
            core.check_cpu(request.cpu, count)?;
            if let MessageKeeper::Endpoint(fit) = message {
                // Check the highest vector only: its message is the widest.
                fit.check(
                    self.message_to(core, CpuVector { cpu: request.cpu, vector: self.window.1 })?,
                )?;
            }
            let first = core.free.run(count).ok_or(MsiError::NoVectors { wanted: count })?;
            for (done, index) in (first..first + usize::from(count)).enumerate() {
                let among = managed.pop();
                if let Err((error, among)) = self.occupy(core, index, request, (phase, among)) {
                    // Put the lists back into `managed`, which has room for them, so that they are
                    // dropped without holding the lock.
                    managed.extend(among);
                    for index in first..first + done {
                        managed.extend(self.vacate(core, index));
                    }
                    return Err(error);
                }
            }
            Ok(HwIrqBlock::new(number(first), request.count))
        });
        if allocated.is_err() {
            self.quotas.with(self.apic(), |quotas| quotas.refund(attachment, count));
        }
        allocated
    }

    fn occupy(
        &self,
        core: &mut Core,
        index: usize,
        request: &BlockRequest,
        (phase, managed): (Phase, Option<Vec<Cpu>>),
    ) -> Result<(), (MsiError, Option<Vec<Cpu>>)> {
        let full = MsiError::NoVectors { wanted: request.count.get() };
        let Some((irq, state)) = self.irqs.get(index).zip(core.irqs.get_mut(index)) else {
            return Err((full, managed));
        };
        let keeps_its_vector =
            |fit: Fit| !matches!(fit.rewrite, Rewrite::Masked | Rewrite::Atomic64);
        let fixed = match phase {
            Phase::Owned { message: MessageKeeper::Endpoint(fit), .. } => keeps_its_vector(fit),
            _ => false,
        };
        let matrix = &mut core.matrix;
        let taken = match &managed {
            Some(_) if fixed => return Err((MsiError::WouldTear, managed)),
            Some(among) => matrix.reserve_managed(among).and_then(|()| {
                matrix.allocate_managed(request.cpu).inspect_err(|_| release_aside(matrix, among))
            }),
            None if fixed => matrix.allocate_common(request.cpu),
            None => matrix.allocate(request.cpu),
        };
        let Ok(cpu_vector) = taken else { return Err((full, managed)) };
        *state = IrqDataLocked { phase, managed, ..IrqDataLocked::default() };
        core.free.take(index);
        irq.flags
            .store(if request.initially == Initially::Masked { HELD } else { 0 }, Ordering::SeqCst);
        irq.set_cpu_vector(Some(cpu_vector));
        self.set_entry(cpu_vector, Some(index));
        Ok(())
    }

    /// Undoes [`occupy`](Self::occupy) for a hwirq that was not yet returned to a caller. Returns
    /// the list of CPUs of a managed hwirq.
    fn vacate(&self, core: &mut Core, index: usize) -> Option<Vec<Cpu>> {
        let (irq, state) = self.irqs.get(index).zip(core.irqs.get_mut(index))?;
        state.phase = Phase::Free;
        core.free.give_back(index);
        let cpu_vector = irq.cpu_vector();
        irq.set_cpu_vector(None);
        let managed = state.managed.take();
        if let Some(cpu_vector) = cpu_vector {
            self.set_entry(cpu_vector, None);
            core.release(cpu_vector);
        }
        if let Some(among) = &managed {
            release_aside(&mut core.matrix, among);
        }
        managed
    }

    /// Frees hwirqs. Interrupts that still arrive are reported as
    /// [`Arrival::Released`](crate::Arrival::Released).
    ///
    /// Context: task; may sleep.
    pub(crate) fn free_block(&self, device: &Attachment, block: &HwIrqBlock, freed: FreedVectors) {
        let attachment = AttachmentId::of(device);
        let vectors = || (0..block.count().get()).filter_map(|index| block.hwirq(index));
        let mut count = 0;
        for vector in vectors() {
            // Drop the list of CPUs without holding the lock.
            let (released, _managed) = self.with_core(|core| {
                let released = self.release(core, attachment, vector, freed);
                (released, if released { self.unmanage(core, vector) } else { None })
            });
            count += u16::from(released);
        }
        if freed == FreedVectors::Reusable {
            let draining = vectors().filter_map(|vector| {
                let index = self.index(vector)?;
                let drains = |core: &mut Core| core.irqs.get(index).map(|state| state.phase);
                self.irqs.get(index).filter(|_| self.with_core(drains) == Some(Phase::Draining))
            });
            self.clean_up_later(draining.flat_map(IrqData::former));
            self.quotas.with(self.apic(), |quotas| quotas.refund(attachment, count));
        }
    }

    /// Releases the managed vectors of a freed hwirq. Managed vectors that are still in use become
    /// normal vectors, and are freed when they are cleaned up.
    fn unmanage(&self, core: &mut Core, hwirq: HwIrq) -> Option<Vec<Cpu>> {
        let (irq, state) = self.irq(hwirq).zip(core.irqs.get_mut(self.index(hwirq)?))?;
        let among = state.managed.take()?;
        for cpu in &among {
            let used = irq.former().find(|cpu_vector| cpu_vector.cpu == *cpu);
            let released = match used {
                Some(cpu_vector) => core.matrix.unmanage(cpu_vector),
                None => core.matrix.release_managed(&[*cpu]),
            };
            debug_assert_eq!(released, Ok::<(), MatrixError>(()));
        }
        Some(among)
    }

    /// Releases a hwirq. Returns `true` if the hwirq belonged to the device.
    fn release(
        &self,
        core: &mut Core,
        attachment: AttachmentId,
        hwirq: HwIrq,
        freed: FreedVectors,
    ) -> bool {
        let Some(index) = self.index(hwirq) else { return false };
        let Some((irq, state)) = self.irqs.get(index).zip(core.irqs.get_mut(index)) else {
            return false;
        };
        match state.phase {
            Phase::Owned { attachment: owner, .. } if owner == attachment => {}
            _ => return false,
        }
        irq.flags.store(RELEASED, Ordering::SeqCst);
        irq.await_arrival(None);
        irq.cpu_vector()
            .into_iter()
            .chain(state.moving.take())
            .for_each(|cpu_vector| irq.add_former(cpu_vector));
        irq.set_cpu_vector(None);
        state.phase = match freed {
            FreedVectors::Reusable => Phase::Draining,
            FreedVectors::Retired => Phase::Lost,
        };
        true
    }
}

/// Releases the managed vectors on these CPUs, which must be unused.
fn release_aside(matrix: &mut VectorMatrix, among: &[Cpu]) {
    let released = matrix.release_managed(among);
    debug_assert_eq!(released, Ok::<(), MatrixError>(()));
}

impl Core {
    /// Checks that the CPU can take `count` more vectors. The error distinguishes whether another
    /// CPU could take them.
    pub(super) fn check_cpu(&self, cpu: Cpu, count: u16) -> Result<(), MsiError> {
        let can =
            |cpu| self.matrix.is_online(cpu) && self.matrix.available_on(cpu) >= u32::from(count);
        if !self.matrix.is_online(cpu) {
            Err(MsiError::NotReachable(cpu, "it is offline"))
        } else if can(cpu) {
            Ok(())
        } else if (0..).map(Cpu::new).take(self.apic_ids.len()).any(can) {
            Err(MsiError::NotReachable(cpu, "its vectors are taken"))
        } else {
            Err(MsiError::NoVectors { wanted: count })
        }
    }
}
