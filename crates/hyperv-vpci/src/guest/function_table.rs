//! A bus's functions, as reported by the host, and the requests that were sent, with their answers.

use crate::protocol::{BARS, DeviceDescription, Relations, SLOTS, Slot};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use msi_types::HwIrq;

/// A function event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
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

/// Identity of a function, which no later function in the same slot shares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FunctionId {
    pub(super) slot: Slot,
    /// Distinguishes functions that occupied the same slot at different times.
    epoch: u64,
}

/// A slot's function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) description: DeviceDescription,
    pub(super) id: FunctionId,
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

    fn contains(&self, slot: Slot) -> bool {
        let (word, bit) = Self::place(slot);
        self.0.get(word).is_some_and(|word| word & bit != 0)
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
    epoch: u64,
    gone: SlotSet,
    ejecting: SlotSet,
    /// Slots whose function's ejection was reported to the kernel.
    ejected: SlotSet,
    /// Slots whose last reported ejection is void, because its function was removed or the bus was
    /// suspended.
    void_ejections: SlotSet,
    arrived: SlotSet,
    has_removed: bool,
}

impl FunctionTable {
    pub(super) fn new() -> Result<Self, TryReserveError> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(SLOTS)?;
        slots.resize(SLOTS, None);
        let [gone, ejecting, ejected, void_ejections, arrived] = Default::default();
        let (epoch, has_removed) = (0, false);
        Ok(Self { slots, epoch, gone, ejecting, ejected, void_ejections, arrived, has_removed })
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Function> {
        self.slots.get(slot.to_wire() as usize)?.as_ref()
    }

    fn entry(&mut self, slot: Slot) -> Option<&mut Option<Function>> {
        self.slots.get_mut(slot.to_wire() as usize)
    }

    /// Returns a listed function and marks it as being assigned. The caller must then assign its
    /// resources.
    pub(super) fn take_listed(&mut self) -> Option<FunctionId> {
        let mut functions = self.slots.iter_mut().flatten();
        let function = functions.find(|function| function.state == FunctionState::Listed)?;
        function.state = FunctionState::Assigning;
        Some(function.id)
    }

    /// Returns `true` if any function hasn't been assigned its resources yet.
    pub(super) fn has_listed(&self) -> bool {
        self.iter().any(|function| function.state == FunctionState::Listed)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Function> {
        self.slots.iter().flatten()
    }

    /// Returns `true` if this function, and not a successor, is in its slot.
    pub(super) fn is_present(&self, id: FunctionId) -> bool {
        self.get(id.slot).is_some_and(|function| function.id == id)
    }

    /// Returns `true` if any function was removed since the last call.
    pub(super) fn take_removed(&mut self) -> bool {
        core::mem::take(&mut self.has_removed)
    }

    /// Updates the functions from the host's list. A function counts as removed if it isn't listed,
    /// or if [another one](DeviceDescription::is_same_function) is listed in its slot.
    pub(super) fn update(&mut self, relations: &Relations<'_>) {
        let mut listed = SlotSet::default();
        for description in relations.functions() {
            // If the host lists several functions in a slot, the first one counts.
            if !listed.contains(description.slot) {
                listed.set(description.slot);
                self.update_slot(description);
            }
        }
        slots().filter(|slot| !listed.contains(*slot)).for_each(|slot| self.remove(slot));
    }

    fn update_slot(&mut self, description: DeviceDescription) {
        let slot = description.slot;
        if let Some(Some(known)) = self.entry(slot)
            && known.description.is_same_function(&description)
        {
            known.description = description;
            return;
        }
        self.remove(slot);
        self.epoch += 1;
        let id = FunctionId { slot, epoch: self.epoch };
        let state = FunctionState::Listed;
        if let Some(entry) = self.entry(slot) {
            *entry = Some(Function { description, id, state });
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
        if self.ejected.take(slot) {
            self.void_ejections.set(slot);
        }
        self.has_removed |= removed.is_some();
        let had_resources = |function: Function| {
            matches!(function.state, FunctionState::Ready(_) | FunctionState::Suspended(_))
        };
        was_told && removed.is_some_and(had_resources)
    }

    /// Revokes the resources of all functions. Functions that had resources are marked as
    /// suspended.
    pub(super) fn suspend(&mut self) {
        self.ejecting = SlotSet::default();
        while let Some(slot) = self.ejected.take_first() {
            self.void_ejections.set(slot);
        }
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

    /// Records that the host wants to eject a function. Returns `false` if the slot is empty.
    pub(super) fn eject(&mut self, slot: Slot) -> bool {
        let there = self.get(slot).is_some();
        if there {
            self.ejecting.set(slot);
        }
        there
    }

    /// Returns the function in this slot, unless the last reported ejection from the slot is void:
    /// its completion is then about the function that was there before.
    pub(super) fn ejected(&self, slot: Slot) -> Option<FunctionId> {
        let function = self.get(slot).filter(|_| !self.void_ejections.contains(slot));
        function.map(|function| function.id)
    }

    /// Records the outcome of assigning a function's resources, unless the function was removed in
    /// the meantime. A function that was suspended doesn't arrive again.
    pub(super) fn set_state(&mut self, id: FunctionId, state: FunctionState) {
        if !self.is_present(id) {
            return;
        }
        let Some(Some(function)) = self.entry(id.slot) else { return };
        let before = core::mem::replace(&mut function.state, state);
        let is_new = !matches!(before, FunctionState::Suspended(_));
        if is_new && matches!(state, FunctionState::Ready(_)) {
            self.arrived.set(id.slot);
        }
    }

    /// Returns the next event. For each slot, a removal precedes later events.
    pub(super) fn next_event(&mut self) -> Option<BusEvent> {
        let gone = self.gone.take_first().map(BusEvent::Gone);
        gone.or_else(|| self.arrived.take_first().map(BusEvent::Arrived)).or_else(|| {
            let slot = self.ejecting.take_first()?;
            self.ejected.set(slot);
            self.void_ejections.take(slot);
            Some(BusEvent::EjectRequested(slot))
        })
    }
}

/// Number of bytes of an answer that we keep. No parser reads more.
const MAX_ANSWER: usize = 32;

/// The first bytes of a completion's payload.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Completion {
    bytes: [u8; MAX_ANSWER],
    length: usize,
}

impl Completion {
    pub(super) fn new(payload: &[u8]) -> Self {
        let mut bytes = [0; MAX_ANSWER];
        bytes.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
        Self { bytes, length: payload.len().min(MAX_ANSWER) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// A request that was sent.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: u64,
    pub(super) state: State,
}

#[derive(PartialEq, Debug)]
pub(super) enum State {
    Waiting,
    Done(Completion),
    /// The request for the message of the vectors from this one on was abandoned. If its answer
    /// grants a message, the message is returned to the host.
    Late(FunctionId, HwIrq),
    /// The request is for a deletion in the queue of deletions.
    Deletion,
}
