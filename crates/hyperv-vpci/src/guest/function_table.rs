//! A bus's functions, as reported by the host.

use crate::protocol::{BARS, DeviceDescription, Relations, SLOTS, Slot};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;

/// A function event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BusEvent {
    /// The function was removed. Accesses no longer reach the function, and its driver must free
    /// its interrupts.
    Gone(Slot),
    /// The host wants to eject the function. Its driver must release it, and then the kernel must
    /// call [`Bus::eject_complete`](super::Bus::eject_complete).
    EjectRequested(Slot),
    /// The function is present and has its resources.
    Arrived(Slot),
}

/// A slot's function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) description: DeviceDescription,
    /// Distinguishes functions that occupied the same slot at different times.
    pub(super) epoch: u32,
    pub(super) state: FunctionState,
}

/// A function's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FunctionState {
    /// The host has listed the function.
    Listed,
    /// A task is assigning the function's resources.
    Assigning,
    /// The function has its resources. The array contains the values that its base address
    /// registers return after all ones were written to them.
    Ready([u32; BARS]),
    /// The host refused to assign resources.
    Failed,
    /// The bus is suspended. The array contains the values from before the suspension.
    Suspended([u32; BARS]),
}

/// A set of slots, with a bit for each.
#[derive(Default, Debug)]
struct SlotSet([u64; SLOTS / 64]);

impl SlotSet {
    fn set(&mut self, slot: Slot) {
        let (word, bit) = Self::place(slot);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Clears a bit and returns `true` if it was set.
    fn take(&mut self, slot: Slot) -> bool {
        let (word, bit) = Self::place(slot);
        self.0.get_mut(word).is_some_and(|word| {
            let was_set = *word & bit != 0;
            *word &= !bit;
            was_set
        })
    }

    fn take_first(&mut self) -> Option<Slot> {
        slots().find(|slot| self.take(*slot))
    }

    const fn place(slot: Slot) -> (usize, u64) {
        let number = slot.to_wire();
        ((number / 64) as usize, 1 << (number % 64))
    }
}

/// Returns all slots in order of their numbers.
pub(super) fn slots() -> impl DoubleEndedIterator<Item = Slot> {
    (0..=u8::MAX).map(|number| Slot::new(number & 0x1f, number >> 5))
}

/// A bus's slots. The table has a fixed size, so the host's list cannot make it consume more
/// memory.
#[derive(Debug)]
pub(super) struct FunctionTable {
    slots: Vec<Option<Function>>,
    epoch: u32,
    gone: SlotSet,
    ejecting: SlotSet,
    arrived: SlotSet,
}

impl FunctionTable {
    pub(super) fn new() -> Result<Self, TryReserveError> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(SLOTS)?;
        slots.resize(SLOTS, None);
        let [gone, ejecting, arrived] = Default::default();
        Ok(Self { slots, epoch: 0, gone, ejecting, arrived })
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Function> {
        self.slots.get(slot.to_wire() as usize)?.as_ref()
    }

    fn entry(&mut self, slot: Slot) -> Option<&mut Option<Function>> {
        self.slots.get_mut(slot.to_wire() as usize)
    }

    /// Returns a listed function and marks it as being assigned. The caller must then assign its
    /// resources.
    pub(super) fn take_listed(&mut self) -> Option<(Slot, u32)> {
        let mut functions = self.slots.iter_mut().flatten();
        let function = functions.find(|function| function.state == FunctionState::Listed)?;
        function.state = FunctionState::Assigning;
        Some((function.description.slot, function.epoch))
    }

    /// Returns `true` if any function hasn't been assigned its resources yet.
    pub(super) fn has_listed(&self) -> bool {
        self.iter().any(|function| function.state == FunctionState::Listed)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Function> {
        self.slots.iter().flatten()
    }

    /// Returns `true` if the function from this epoch is still present.
    pub(super) fn is_present(&self, slot: Slot, epoch: u32) -> bool {
        self.get(slot).is_some_and(|function| function.epoch == epoch)
    }

    /// Updates the functions from the host's list. A function counts as removed if it isn't listed,
    /// or if [another one](DeviceDescription::is_same_function) is listed in its slot.
    pub(super) fn update(&mut self, relations: &Relations<'_>) {
        for slot in slots() {
            let listed = relations.functions().find(|function| function.slot == slot);
            self.update_slot(slot, listed);
        }
    }

    fn update_slot(&mut self, slot: Slot, listed: Option<DeviceDescription>) {
        if let (Some(Some(known)), Some(listed)) = (self.entry(slot), &listed)
            && known.description.is_same_function(listed)
        {
            known.description = *listed;
            return;
        }
        self.remove(slot);
        if let Some(description) = listed {
            self.epoch = self.epoch.wrapping_add(1);
            let epoch = self.epoch;
            let state = FunctionState::Listed;
            if let Some(entry) = self.entry(slot) {
                *entry = Some(Function { description, epoch, state });
            }
        }
    }

    /// Removes a function, and queues a removal event if the function's arrival was reported.
    pub(super) fn remove(&mut self, slot: Slot) {
        // If we never reported a function's arrival, we must not report that it's gone.
        if self.forget(slot) {
            self.gone.set(slot);
        }
    }

    /// Removes a function without queueing an event. Returns `true` if the function's arrival was
    /// reported.
    pub(super) fn forget(&mut self, slot: Slot) -> bool {
        let removed = self.entry(slot).and_then(Option::take);
        let was_told = !self.arrived.take(slot);
        self.ejecting.take(slot);
        let had_resources = |function: Function| {
            matches!(function.state, FunctionState::Ready(_) | FunctionState::Suspended(_))
        };
        was_told && removed.is_some_and(had_resources)
    }

    /// Revokes the resources of all functions. Functions that had resources are marked as
    /// suspended.
    pub(super) fn suspend(&mut self) {
        self.ejecting = SlotSet::default();
        for function in self.slots.iter_mut().flatten() {
            function.state = match function.state {
                FunctionState::Ready(bars) | FunctionState::Suspended(bars) => {
                    FunctionState::Suspended(bars)
                }
                FunctionState::Listed | FunctionState::Assigning | FunctionState::Failed => {
                    FunctionState::Listed
                }
            };
        }
    }

    /// Records that a function's resources have been assigned again.
    pub(super) fn resume(&mut self, slot: Slot, bars: [u32; BARS]) {
        if let Some(Some(function)) = self.entry(slot) {
            function.state = FunctionState::Ready(bars);
        }
    }

    /// Records that the host wants to eject a function. Returns `false` if the slot is empty.
    pub(super) fn eject(&mut self, slot: Slot) -> bool {
        let there = self.get(slot).is_some();
        if there {
            self.ejecting.set(slot);
        }
        there
    }

    /// Records the outcome of assigning a function's resources, unless the function was removed in
    /// the meantime.
    pub(super) fn set_state(&mut self, slot: Slot, epoch: u32, state: FunctionState) {
        if !self.is_present(slot, epoch) {
            return;
        }
        if let Some(Some(function)) = self.entry(slot) {
            function.state = state;
        }
        if matches!(state, FunctionState::Ready(_)) {
            self.arrived.set(slot);
        }
    }

    /// Returns the next event. For each slot, a removal precedes later events.
    pub(super) fn next_event(&mut self) -> Option<BusEvent> {
        let gone = self.gone.take_first().map(BusEvent::Gone);
        gone.or_else(|| self.arrived.take_first().map(BusEvent::Arrived))
            .or_else(|| self.ejecting.take_first().map(BusEvent::EjectRequested))
    }
}
