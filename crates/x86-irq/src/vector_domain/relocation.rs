//! From one place to another, in two phases.

use super::slot::{MessageKeeper, Phase, Slot};
use super::{Core, VectorDomain};
use crate::apic::CpuVector;
use msi_types::{Cpu, HwIrq, MsiError, MsiMessage, Rewrite};

/// The device cannot change its data along with the address, so that its vector has to be free at
/// the new CPU.
const SAME_VECTOR_TAKEN: &str =
    "the same vector is taken there, and the endpoint cannot change address and data at once";
/// Each former place waits for a clean-up.
const TOO_OFTEN: &str = "the interrupt left too many places lately that are not cleaned up yet";

/// A move that was begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaceMove {
    pub(crate) from: CpuVector,
    pub(crate) to: CpuVector,
    /// For the endpoint; `None` if there is nothing to store.
    pub(crate) message: Option<MsiMessage>,
}

/// A move that is asked for.
struct Step {
    from: CpuVector,
    to: Cpu,
    message: MessageKeeper,
    aside: Aside,
}

/// Has the interrupt a vector set aside at its new CPU?
#[derive(Clone, Copy)]
enum Aside {
    /// It is not managed.
    No,
    Yes,
    /// It is managed for other CPUs.
    Elsewhere,
}

/// The place that a move ended with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeptPlace {
    New,
    Old,
}

impl VectorDomain {
    /// Takes a place for the slot at its new CPU; interrupts there are the slot's from now on.
    /// Task.
    pub(crate) fn begin_place_move(&self, hwirq: HwIrq, to: Cpu) -> Result<PlaceMove, MsiError> {
        let unknown = MsiError::UnknownVector(hwirq);
        let (index, slot) = self.index(hwirq).zip(self.slot(hwirq)).ok_or(unknown)?;
        self.with_core(|core| {
            let state = core.slots.get(index).ok_or(unknown)?;
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
            let from = slot.place().ok_or(unknown)?;
            if from.cpu == to {
                return Ok(PlaceMove { from, to: from, message: None });
            }
            if !slot.has_room() && !slot.former().any(|former| former.cpu == to) {
                return Err(MsiError::NotReachable(to, TOO_OFTEN));
            }
            let (place, message) =
                self.choose_place(core, slot, Step { from, to, message, aside })?;
            if let Some(state) = core.slots.get_mut(index) {
                state.moving = Some(place);
            }
            slot.await_arrival(Some(place));
            self.set_entry(place, Some(index));
            Ok(PlaceMove { from, to: place, message })
        })
    }

    fn choose_place(
        &self,
        core: &mut Core,
        slot: &Slot,
        Step { from, to, message, aside }: Step,
    ) -> Result<(CpuVector, Option<MsiMessage>), MsiError> {
        if !core.matrix.is_online(to) {
            return Err(MsiError::NotReachable(to, "it is not on line"));
        }
        let MessageKeeper::Endpoint(fit) = message else {
            return Ok((core.place_on(slot, aside, to)?, None));
        };
        let same = CpuVector { cpu: to, vector: from.vector };
        let (old, new) = (self.message_to(core, from)?, self.message_to(core, same)?);
        fit.check(new)?;
        let takes_address = match fit.rewrite {
            Rewrite::LowWordOnly => old.address_high() == new.address_high(),
            Rewrite::Never => false,
            Rewrite::AddressOnly | Rewrite::Masked | Rewrite::Atomic64 => true,
        };
        let place = match fit.rewrite {
            Rewrite::Masked | Rewrite::Atomic64 => core.place_on(slot, aside, to)?,
            _ if takes_address => {
                if slot.former().any(|former| former == same) {
                    // It was there lately, and still has it.
                    slot.remove_former(same);
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
        Ok((place, Some(self.message_to(core, place)?)))
    }

    /// Ends a move: the place that was left becomes a former one. Task.
    pub(crate) fn end_place_move(&self, hwirq: HwIrq, kept: KeptPlace) -> Result<(), MsiError> {
        let unknown = MsiError::UnknownVector(hwirq);
        let (index, slot) = self.index(hwirq).zip(self.slot(hwirq)).ok_or(unknown)?;
        let may_go = self.with_core(|core| {
            let state = core.slots.get_mut(index).ok_or(unknown)?;
            let (Some(new), Some(old)) = (state.moving.take(), slot.place()) else {
                return Err(unknown);
            };
            match kept {
                KeptPlace::New => {
                    slot.set_place(Some(new));
                    slot.add_former(old);
                    // The layer's invalidation has drained the old place. What an endpoint sent
                    // before it was rewritten may still be under way.
                    if let Phase::Owned { message: MessageKeeper::Nowhere, .. } = state.phase {
                        slot.await_arrival(None);
                    }
                }
                // The endpoint may have held the new message for a moment.
                KeptPlace::Old => {
                    slot.await_arrival(Some(old));
                    slot.add_former(new);
                }
            }
            state.impatient |= slot.is_crowded();
            let may_go = state.impatient || !slot.awaits_arrival();
            self.pay(core, slot);
            Ok(may_go)
        })?;
        let of_cpu_off_line =
            |place: &CpuVector| !self.with_core(|core| core.matrix.is_online(place.cpu));
        self.clean_up_later(slot.former().filter(|place| may_go || of_cpu_off_line(place)));
        Ok(())
    }
}

impl Core {
    /// A place on a CPU, whatever its vector: the one that the interrupt left lately, if it still
    /// has it. A managed interrupt has one set aside there.
    fn place_on(&mut self, slot: &Slot, aside: Aside, to: Cpu) -> Result<CpuVector, MsiError> {
        if let Aside::Elsewhere = aside {
            return Err(MsiError::NotReachable(to, "the interrupt is managed for other CPUs"));
        }
        if let Some(left) = slot.former().find(|place| place.cpu == to) {
            slot.remove_former(left);
            return Ok(left);
        }
        let taken = match aside {
            Aside::Yes | Aside::Elsewhere => self.matrix.allocate_managed(to),
            Aside::No => self.matrix.allocate(to),
        };
        taken.map_err(|_| MsiError::NotReachable(to, "its vectors are taken"))
    }
}
