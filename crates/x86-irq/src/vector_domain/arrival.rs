//! Looks up interrupts at the trap entry without a lock, and keeps the pending bit for masked
//! interrupts.

use super::irq_data::{HELD, IrqData, PENDING, RELEASED};
use super::{Core, VectorDomain, number};
use crate::apic::{ApicVector, CpuVector};
use core::sync::atomic::Ordering;
use msi_types::{Cpu, HwIrq, Pending};

/// Instruction for the trap entry on how to handle an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arrival {
    /// Dispatch the interrupt with this hwirq.
    Deliver(HwIrq),
    /// Ignore the interrupt, because it is masked. The domain will send it again.
    Held,
    /// Ignore the interrupt, because its hwirq was freed while the message was in flight.
    Released,
    /// Handle the interrupt elsewhere, because the domain does not use this vector on this CPU.
    Unknown,
}

impl VectorDomain {
    /// Returns the hwirq of an interrupt that arrived at `cpu` as `vector`. Whatever the result,
    /// the caller must signal the end of the interrupt to the APIC. Does not take a lock or
    /// allocate. On the first arrival after a move, this function may call
    /// [`Apic::request_cleanup`](crate::Apic::request_cleanup), but no other function of the
    /// kernel.
    ///
    /// Context: hard IRQ.
    #[inline]
    pub fn arrive(&self, cpu: Cpu, vector: ApicVector) -> Arrival {
        let cpu_vector = CpuVector { cpu, vector };
        let Some((index, irq)) =
            self.entry_index(cpu_vector).and_then(|i| Some((i, self.irqs.get(i)?)))
        else {
            return Arrival::Unknown;
        };
        if irq.arrived(cpu_vector) {
            irq.former().for_each(|former| self.apic().request_cleanup(former.cpu));
        }
        let flags = irq.flags.load(Ordering::SeqCst);
        if flags & (HELD | RELEASED) == 0 {
            Arrival::Deliver(number(index))
        } else {
            hold(index, irq)
        }
    }

    /// Holds back arrivals of the interrupt.
    ///
    /// Context: any.
    pub(crate) fn hold_back(&self, hwirq: HwIrq) {
        if let Some(irq) = self.irq(hwirq) {
            irq.flags.fetch_or(HELD, Ordering::SeqCst);
        }
    }

    /// Stops holding the interrupt back, and sends it if it was held back.
    ///
    /// Context: any.
    pub(crate) fn let_through(&self, hwirq: HwIrq) {
        let Some(irq) = self.irq(hwirq) else { return };
        irq.flags.fetch_and(!HELD, Ordering::SeqCst);
        self.with_core(|core| self.send_pending(core, irq));
    }

    /// Makes the interrupt pending, or drops a pending one that is held back.
    ///
    /// Context: any.
    pub(crate) fn change_pending(&self, hwirq: HwIrq, pending: Pending) {
        let Some(irq) = self.irq(hwirq) else { return };
        match pending {
            Pending::Set => self.with_core(|core| {
                let set = |flags| (flags & RELEASED == 0).then_some(flags | PENDING);
                if irq.flags.fetch_update(Ordering::SeqCst, Ordering::SeqCst, set).is_ok() {
                    self.send_pending(core, irq);
                }
            }),
            Pending::Clear => drop(irq.flags.fetch_and(!PENDING, Ordering::SeqCst)),
        }
    }

    /// Sends a recorded pending interrupt if it may be delivered now. Returns `true` if it was
    /// sent. The caller must hold the lock, so that the vector does not change concurrently.
    pub(super) fn send_pending(&self, core: &Core, irq: &IrqData) -> bool {
        let Some(cpu_vector) = irq.cpu_vector() else { return false };
        let Some(id) =
            core.apic_id(cpu_vector.cpu).filter(|_| core.matrix.is_online(cpu_vector.cpu))
        else {
            return false;
        };
        let take = |flags| (flags & (HELD | PENDING) == PENDING).then_some(flags & !PENDING);
        let sent = irq.flags.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
        if sent {
            self.apic().send(id, cpu_vector.vector);
        }
        sent
    }

    /// Returns `true` if the interrupt is held back or requested at an APIC, or `None` if this
    /// depends on an APIC that cannot be read.
    ///
    /// Context: any.
    pub(crate) fn pending(&self, hwirq: HwIrq) -> Option<bool> {
        let irq = self.irq(hwirq)?;
        if irq.flags.load(Ordering::SeqCst) & PENDING != 0 {
            return Some(true);
        }
        self.with_core(|_| {
            let cpu_vectors = irq.cpu_vector().into_iter().chain(irq.former());
            let mut answers = cpu_vectors
                .map(|cpu_vector| self.apic().is_requested(cpu_vector.cpu, cpu_vector.vector));
            answers.try_fold(false, |any, answer| answer.map(|requested| any | requested))
        })
    }
}

/// Records a masked interrupt as pending. Drops the interrupt if its hwirq was freed.
#[cold]
fn hold(index: usize, irq: &IrqData) -> Arrival {
    let remember = |flags| (flags & (HELD | RELEASED) == HELD).then_some(flags | PENDING);
    match irq.flags.fetch_update(Ordering::SeqCst, Ordering::SeqCst, remember) {
        Ok(_) => Arrival::Held,
        Err(flags) if flags & RELEASED != 0 => Arrival::Released,
        Err(_) => Arrival::Deliver(number(index)),
    }
}
