//! The trap entry's half, without a lock; and the pending bit behind a mask.

use super::slot::{HELD, PENDING, RELEASED, Slot};
use super::{Core, VectorDomain, number};
use crate::apic::{ApicVector, CpuVector};
use core::sync::atomic::Ordering;
use msi_types::{Cpu, HwIrq, Pending};

/// Duty of the trap entry for an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arrival {
    /// Dispatches it by this number.
    Deliver(HwIrq),
    /// Nothing: it is masked, and will be sent again.
    Held,
    /// Nothing: it was freed while this one was under way.
    Released,
    /// The vector is none of the domain's on this CPU.
    Unknown,
}

impl VectorDomain {
    /// An interrupt arrived at `cpu` as `vector`: whose is it? The caller ends it at the APIC,
    /// whatever the answer. Hard IRQ: takes no lock, allocates nothing, and calls
    /// [`Apic::request_cleanup`](crate::Apic::request_cleanup) at most, for the first arrival after
    /// a move.
    #[inline]
    pub fn arrive(&self, cpu: Cpu, vector: ApicVector) -> Arrival {
        let place = CpuVector { cpu, vector };
        let Some((index, slot)) =
            self.entry_index(place).and_then(|i| Some((i, self.slots.get(i)?)))
        else {
            return Arrival::Unknown;
        };
        if slot.arrived(place) {
            slot.former().for_each(|former| self.apic().request_cleanup(former.cpu));
        }
        let flags = slot.flags.load(Ordering::Acquire);
        if flags & (HELD | RELEASED) == 0 {
            Arrival::Deliver(number(index))
        } else {
            hold(index, slot)
        }
    }

    /// Any.
    pub(crate) fn hold_back(&self, hwirq: HwIrq) {
        if let Some(slot) = self.slot(hwirq) {
            slot.flags.fetch_or(HELD, Ordering::AcqRel);
        }
    }

    /// Any.
    pub(crate) fn let_through(&self, hwirq: HwIrq) {
        let Some(slot) = self.slot(hwirq) else { return };
        slot.flags.fetch_and(!HELD, Ordering::AcqRel);
        self.with_core(|core| self.pay(core, slot));
    }

    /// Any.
    pub(crate) fn change_pending(&self, hwirq: HwIrq, pending: Pending) {
        let Some(slot) = self.slot(hwirq) else { return };
        match pending {
            Pending::Set => self.with_core(|core| {
                let set = |flags| (flags & RELEASED == 0).then_some(flags | PENDING);
                if slot.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, set).is_ok() {
                    self.pay(core, slot);
                }
            }),
            Pending::Clear => drop(slot.flags.fetch_and(!PENDING, Ordering::AcqRel)),
        }
    }

    /// Sends an interrupt that is remembered, if it may arrive now. Under the lock: the place does
    /// not change meanwhile. True if it was sent.
    pub(super) fn pay(&self, core: &Core, slot: &Slot) -> bool {
        let Some(place) = slot.place() else { return false };
        let Some(id) = core.apic_id(place.cpu).filter(|_| core.matrix.is_online(place.cpu)) else {
            return false;
        };
        let take = |flags| (flags & (HELD | PENDING) == PENDING).then_some(flags & !PENDING);
        let sent = slot.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok();
        if sent {
            self.apic().send(id, place.vector);
        }
        sent
    }

    /// Any.
    pub(crate) fn pending(&self, hwirq: HwIrq) -> Option<bool> {
        let slot = self.slot(hwirq)?;
        if slot.flags.load(Ordering::Acquire) & PENDING != 0 {
            return Some(true);
        }
        self.with_core(|_| {
            let places = slot.place().into_iter().chain(slot.former());
            let mut answers = places.map(|place| self.apic().is_requested(place.cpu, place.vector));
            answers.try_fold(false, |any, answer| answer.map(|requested| any | requested))
        })
    }
}

/// A masked interrupt is remembered; one that was freed is not.
#[cold]
fn hold(index: usize, slot: &Slot) -> Arrival {
    let remember = |flags| (flags & (HELD | RELEASED) == HELD).then_some(flags | PENDING);
    match slot.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, remember) {
        Ok(_) => Arrival::Held,
        Err(flags) if flags & RELEASED != 0 => Arrival::Released,
        Err(_) => Arrival::Deliver(number(index)),
    }
}
