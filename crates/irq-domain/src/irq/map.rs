//! Maps IRQ numbers to descriptors. Numbers are dense, because the lowest free one is always
//! allocated first.

use crate::irq::descriptor::Descriptor;
use crate::name::Irq;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::Shared;
use msi_types::Cpu;

/// All interrupts, indexed by IRQ number.
#[derive(Debug, Default)]
pub(crate) struct IrqMap {
    used: Vec<Option<Shared<Descriptor>>>,
    /// No number below this one is free.
    lowest_free: usize,
}

impl IrqMap {
    /// Creates an interrupt with the lowest free number.
    pub(crate) fn insert(
        &mut self,
        make: impl FnOnce(Irq) -> Result<Descriptor, TryReserveError>,
    ) -> Result<Shared<Descriptor>, TryReserveError> {
        let free = self.used.iter().skip(self.lowest_free).position(Option::is_none);
        let index = free.map_or(self.used.len(), |free| self.lowest_free + free);
        self.lowest_free = index;
        // At most 2^24 IRQ numbers are in use, because 2^24 vectors exist and each has at most one
        // IRQ number.
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let descriptor = Shared::try_new(make(Irq::new(number))?)?;
        if index == self.used.len() {
            self.used.try_reserve(1)?;
            self.used.push(None);
        }
        if let Some(entry) = self.used.get_mut(index) {
            *entry = Some(descriptor.clone());
        }
        self.lowest_free = index + 1;
        Ok(descriptor)
    }

    /// Frees a number.
    pub(crate) fn remove(&mut self, irq: Irq) {
        let index = irq.get() as usize;
        if self.used.get_mut(index).and_then(Option::take).is_some() {
            self.lowest_free = self.lowest_free.min(index);
        }
    }

    pub(crate) fn get(&self, irq: Irq) -> Option<Shared<Descriptor>> {
        self.used.get(irq.get() as usize)?.clone()
    }

    /// Returns the first interrupt that the predicate `wanted` accepts.
    pub(crate) fn find(&self, wanted: impl Fn(&Descriptor) -> bool) -> Option<Shared<Descriptor>> {
        self.used.iter().flatten().find(|descriptor| wanted(descriptor)).cloned()
    }

    /// Returns each managed interrupt's target.
    pub(crate) fn managed_targets(&self) -> impl Iterator<Item = Cpu> {
        let managed = self.used.iter().flatten().filter(|descriptor| descriptor.among.is_some());
        managed.map(|descriptor| descriptor.target())
    }

    /// Returns the first interrupt whose number is at least `irq`.
    pub(crate) fn first_from(&self, irq: Irq) -> Option<Shared<Descriptor>> {
        self.used.get(irq.get() as usize..)?.iter().flatten().next().cloned()
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::irq::descriptor::{NewDescriptor, Source, Target};
    use crate::irq::handler::Flow;
    use alloc::sync::Arc;
    use core::num::NonZeroU16;
    use msi_types::{HwIrq, MsiError, Pending, Trigger, WiredParent};

    /// A root controller that must not be called.
    struct Untouched;

    impl WiredParent for Untouched {
        fn claim(&self, _: HwIrq, _: NonZeroU16) -> Result<(), MsiError> {
            unreachable!()
        }
        fn release(&self, _: HwIrq, _: NonZeroU16) {
            unreachable!()
        }
        fn set_trigger(&self, _: HwIrq, _: Trigger) -> Result<(), MsiError> {
            unreachable!()
        }
        fn set_target(&self, _: HwIrq, _: Cpu) -> Result<(), MsiError> {
            unreachable!()
        }
        fn mask(&self, _: HwIrq) {
            unreachable!()
        }
        fn unmask(&self, _: HwIrq) {
            unreachable!()
        }
        fn set_pending(&self, _: HwIrq, _: Pending) {
            unreachable!()
        }
        fn is_pending(&self, _: HwIrq) -> bool {
            unreachable!()
        }
    }

    fn interrupt(irq: Irq) -> Result<Descriptor, TryReserveError> {
        Descriptor::new(NewDescriptor {
            irq,
            hwirq: HwIrq::new(27),
            flow: Flow::PerCpu,
            source: Source::PerCpu(Arc::new(Untouched)),
            target: Target::own(Cpu::new(0)),
            among: None,
            cpus: 1,
            unmasked: false,
        })
    }

    #[test]
    fn the_lowest_free_irq_number_is_reused_first() {
        let mut numbers = IrqMap::default();
        let made: Vec<_> = (0..4).map(|_| numbers.insert(interrupt).unwrap().irq.get()).collect();
        assert_eq!(made, [0, 1, 2, 3]);
        numbers.remove(Irq::new(2));
        numbers.remove(Irq::new(0));
        let again: Vec<_> = (0..3).map(|_| numbers.insert(interrupt).unwrap().irq.get()).collect();
        assert_eq!(again, [0, 2, 4]);
    }

    #[test]
    fn an_irq_number_freed_twice_is_reused_once() {
        let mut numbers = IrqMap::default();
        numbers.insert(interrupt).unwrap();
        numbers.remove(Irq::new(0));
        numbers.remove(Irq::new(0));
        assert_eq!(numbers.insert(interrupt).unwrap().irq, Irq::new(0));
        assert_eq!(numbers.insert(interrupt).unwrap().irq, Irq::new(1));
    }
}
