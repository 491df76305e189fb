//! Handing vectors out, and taking them back.

use super::slot::{HELD, MessageKeeper, Phase, RELEASED, Reuse, Slot, SlotState};
use super::{ClaimId, Core, VectorDomain, number};
use crate::apic::CpuVector;
use crate::matrix::{MatrixError, VectorMatrix};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use msi_types::{
    Attachment, BlockRequest, Cpu, Fit, HwIrq, HwIrqBlock, Initially, MsiError, Rewrite,
};

impl VectorDomain {
    /// Slots for `request`, each with a place on its CPU; managed ones take a list of CPUs each.
    /// All or nothing. Task.
    pub(crate) fn allocate_block(
        &self,
        device: &Attachment,
        request: &BlockRequest,
        message: MessageKeeper,
        mut managed: Vec<Vec<Cpu>>,
    ) -> Result<HwIrqBlock, MsiError> {
        let count = request.count.get();
        let claim = self.claims.with(self.apic(), |claims| claims.charge(device, count))?;
        let phase = Phase::Owned { claim, message };
        let allocated = self.with_core(|core| {
            core.check_cpu(request.cpu, count)?;
            if let MessageKeeper::Endpoint(fit) = message {
                // Of all vectors, the highest has the widest message.
                fit.check(
                    self.message_to(core, CpuVector { cpu: request.cpu, vector: self.window.1 })?,
                )?;
            }
            let first = core.free_run(count).ok_or(MsiError::NoVectors { wanted: count })?;
            for (done, index) in (first..first + usize::from(count)).enumerate() {
                let among = managed.pop();
                if let Err((error, among)) = self.occupy(core, index, request, (phase, among)) {
                    // Back into their list, which has the room: they are dropped without the lock.
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
            self.claims.with(self.apic(), |claims| claims.refund(claim, count));
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
        let Some((slot, state)) = self.slots.get(index).zip(core.slots.get_mut(index)) else {
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
        let Ok(place) = taken else { return Err((full, managed)) };
        *state = SlotState { phase, managed, ..SlotState::default() };
        slot.flags.store(
            if request.initially == Initially::Masked { HELD } else { 0 },
            Ordering::Release,
        );
        slot.set_place(Some(place));
        self.set_entry(place, Some(index));
        Ok(())
    }

    /// Undoes [`occupy`](Self::occupy): nobody was told of the slot. Answers what it was managed
    /// for.
    fn vacate(&self, core: &mut Core, index: usize) -> Option<Vec<Cpu>> {
        let (slot, state) = self.slots.get(index).zip(core.slots.get_mut(index))?;
        state.phase = Phase::Free;
        let place = slot.place();
        slot.set_place(None);
        let managed = state.managed.take();
        if let Some(place) = place {
            self.set_entry(place, None);
            core.release(place);
        }
        if let Some(among) = &managed {
            release_aside(&mut core.matrix, among);
        }
        managed
    }

    /// Takes slots back: what still arrives is [released](crate::Arrival::Released). Task.
    pub(crate) fn free_block(&self, device: &Attachment, block: &HwIrqBlock, reuse: Reuse) {
        let claim = ClaimId::of(device);
        let vectors = || (0..block.count().get()).filter_map(|index| block.hwirq(index));
        let mut freed = 0;
        for vector in vectors() {
            // The list of its CPUs is dropped without the lock.
            let (released, _managed) = self.with_core(|core| {
                let released = self.release(core, claim, vector, reuse);
                (released, if released { self.unmanage(core, vector) } else { None })
            });
            freed += u16::from(released);
        }
        if reuse == Reuse::Allowed {
            let draining = vectors().filter_map(|vector| {
                let index = self.index(vector)?;
                let drains = |core: &mut Core| core.slots.get(index).map(|state| state.phase);
                self.slots.get(index).filter(|_| self.with_core(drains) == Some(Phase::Draining))
            });
            self.clean_up_later(draining.flat_map(Slot::former));
            self.claims.with(self.apic(), |claims| claims.refund(claim, freed));
        }
    }

    /// Releases the vectors set aside for a freed slot. Those in use become
    /// normal when it is given up.
    fn unmanage(&self, core: &mut Core, hwirq: HwIrq) -> Option<Vec<Cpu>> {
        let (slot, state) = self.slot(hwirq).zip(core.slots.get_mut(self.index(hwirq)?))?;
        let among = state.managed.take()?;
        for cpu in &among {
            let used = slot.former().find(|place| place.cpu == *cpu);
            let released = match used {
                Some(place) => core.matrix.unmanage(place),
                None => core.matrix.release_managed(&[*cpu]),
            };
            debug_assert_eq!(released, Ok::<(), MatrixError>(()));
        }
        Some(among)
    }

    /// True if the slot was the device's.
    fn release(&self, core: &mut Core, claim: ClaimId, hwirq: HwIrq, reuse: Reuse) -> bool {
        let Some(index) = self.index(hwirq) else { return false };
        let Some((slot, state)) = self.slots.get(index).zip(core.slots.get_mut(index)) else {
            return false;
        };
        match state.phase {
            Phase::Owned { claim: owner, .. } if owner == claim => {}
            _ => return false,
        }
        slot.flags.store(RELEASED, Ordering::Release);
        slot.await_arrival(None);
        slot.place()
            .into_iter()
            .chain(state.moving.take())
            .for_each(|place| slot.add_former(place));
        slot.set_place(None);
        state.phase = match reuse {
            Reuse::Allowed => Phase::Draining,
            Reuse::Never => Phase::Lost,
        };
        true
    }
}

/// No interrupt uses what is set aside.
fn release_aside(matrix: &mut VectorMatrix, among: &[Cpu]) {
    let released = matrix.release_managed(among);
    debug_assert_eq!(released, Ok::<(), MatrixError>(()));
}

impl Core {
    /// Can this CPU take so many more? If not, is another worth a try, or fewer?
    pub(super) fn check_cpu(&self, cpu: Cpu, count: u16) -> Result<(), MsiError> {
        let can =
            |cpu| self.matrix.is_online(cpu) && self.matrix.available_on(cpu) >= u32::from(count);
        if !self.matrix.is_online(cpu) {
            Err(MsiError::NotReachable(cpu, "it is not on line"))
        } else if can(cpu) {
            Ok(())
        } else if (0..).map(Cpu::new).take(self.apic_ids.len()).any(can) {
            Err(MsiError::NotReachable(cpu, "its vectors are taken"))
        } else {
            Err(MsiError::NoVectors { wanted: count })
        }
    }

    /// The lowest run of free slots.
    fn free_run(&self, count: u16) -> Option<usize> {
        let mut first = 0;
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.phase != Phase::Free {
                first = index + 1;
            } else if index + 1 - first == usize::from(count) {
                return Some(first);
            }
        }
        None
    }
}
