//! Places that were left, and CPUs that come and go.

use super::slot::{PENDING, Phase, RELEASED};
use super::{Core, CpuError, VectorDomain};
use crate::apic::{ApicId, ApicVector, CpuVector};
use core::sync::atomic::Ordering;
use msi_types::Cpu;

/// Is there more to do?
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "a place that is still requested is cleaned up by another call"]
pub enum Cleanup {
    /// No, until it is [asked for](crate::Apic::request_cleanup).
    Done,
    /// An interrupt waits to be taken at a place that was left: once that happened, at the next
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

/// Relation of a place to its slot.
enum PlaceRole {
    Present,
    /// It was left; `true` if it may be given up.
    Former(bool),
    /// Nobody's, or not to be touched.
    Other,
}

impl VectorDomain {
    /// The CPU takes interrupts from now on, as this APIC: its local APIC is on. What was to be
    /// sent there meanwhile is sent. Task.
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
            for index in self.places_on(cpu).filter_map(|place| self.entry_index(place)) {
                if let Some(slot) = self.slots.get(index) {
                    self.pay(core, slot);
                }
            }
            Ok(())
        })
    }

    /// The CPU takes no more interrupts from now on. Called on the CPU itself with interrupts off,
    /// after those that could be moved were: what waits in its APIC is sent again to where it
    /// belongs now. Any.
    pub fn offline(&self, cpu: Cpu) -> Result<Offline, CpuError> {
        self.with_core(|core| {
            core.matrix.offline(cpu).map_err(|_| CpuError::Unknown(cpu))?;
            let mut left = Offline::default();
            for place in self.places_on(cpu) {
                let Some(index) = self.entry_index(place) else { continue };
                match self.role_of(core, index, place) {
                    PlaceRole::Present => left.stranded += 1,
                    PlaceRole::Former(_) => {}
                    PlaceRole::Other => continue,
                }
                // Sends twice rather than never if the APIC cannot be asked.
                let waits = self.apic().is_requested(cpu, place.vector) != Some(false);
                left.resent += u32::from(waits && self.send_again(core, index));
                if let PlaceRole::Former(_) = self.role_of(core, index, place) {
                    self.give_up(core, index, place);
                }
            }
            Ok(left)
        })
    }

    /// Gives up the places at this CPU that interrupts have left, where an interrupt has arrived at
    /// the new place and none waits at the old. Called on the CPU itself, when
    /// [`Apic::request_cleanup`] asked for it; the vectors are then free for others. Any.
    ///
    /// [`Apic::request_cleanup`]: crate::Apic::request_cleanup
    pub fn clean_up(&self, cpu: Cpu) -> Cleanup {
        self.with_core(|core| {
            let mut result = Cleanup::Done;
            for place in self.places_on(cpu) {
                let Some(index) = self.entry_index(place) else { continue };
                if let PlaceRole::Former(true) = self.role_of(core, index, place) {
                    let gone = !core.matrix.is_online(cpu);
                    if gone || self.apic().is_requested(cpu, place.vector) == Some(false) {
                        self.give_up(core, index, place);
                    } else {
                        result = Cleanup::Again;
                    }
                }
            }
            result
        })
    }

    /// Asks the CPUs of these places to clean up; those off line have nothing to wait for. Not
    /// under the lock.
    pub(super) fn clean_up_later(&self, places: impl IntoIterator<Item = CpuVector>) {
        let mut last = None;
        for place in places {
            if self.with_core(|core| core.matrix.is_online(place.cpu)) {
                if last.replace(place.cpu) != Some(place.cpu) {
                    self.apic().request_cleanup(place.cpu);
                }
            } else {
                self.with_core(|core| {
                    if let Some(index) = self.entry_index(place)
                        && let PlaceRole::Former(_) = self.role_of(core, index, place)
                    {
                        self.give_up(core, index, place);
                    }
                });
            }
        }
    }

    fn places_on(&self, cpu: Cpu) -> impl Iterator<Item = CpuVector> {
        self.window.0.up_to(self.window.1).map(move |vector: ApicVector| CpuVector { cpu, vector })
    }

    fn role_of(&self, core: &Core, index: usize, place: CpuVector) -> PlaceRole {
        let Some((slot, state)) = self.slots.get(index).zip(core.slots.get(index)) else {
            return PlaceRole::Other;
        };
        if slot.place() == Some(place) {
            return PlaceRole::Present;
        }
        let former = slot.former().any(|former| former == place);
        match state.phase {
            Phase::Owned { .. } if former => {
                PlaceRole::Former(state.impatient || !slot.awaits_arrival())
            }
            Phase::Draining if former => PlaceRole::Former(true),
            _ => PlaceRole::Other,
        }
    }

    /// The place is free for others.
    fn give_up(&self, core: &mut Core, index: usize, place: CpuVector) {
        self.set_entry(place, None);
        core.release(place);
        let Some((slot, state)) = self.slots.get(index).zip(core.slots.get_mut(index)) else {
            return;
        };
        slot.remove_former(place);
        if slot.former().next().is_none() {
            state.impatient = false;
            if state.phase == Phase::Draining {
                state.phase = Phase::Free;
            }
        }
    }

    /// True if it was sent: not if it was freed, or cannot be sent yet.
    fn send_again(&self, core: &Core, index: usize) -> bool {
        let Some(slot) = self.slots.get(index) else { return false };
        let set = |flags| (flags & RELEASED == 0).then_some(flags | PENDING);
        slot.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, set).is_ok()
            && self.pay(core, slot)
    }
}
