//! The list of IRQ numbers: dense, the lowest free one first.

use crate::descriptor::Descriptor;
use crate::irq::Irq;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Which IRQ is which interrupt.
#[derive(Debug, Default)]
pub(crate) struct IrqNumbers {
    used: Vec<Option<Arc<Descriptor>>>,
    free: BTreeSet<u32>,
}

impl IrqNumbers {
    /// Makes the interrupt of the lowest free number.
    pub(crate) fn insert(&mut self, make: impl FnOnce(Irq) -> Descriptor) -> Arc<Descriptor> {
        let number = self.free.pop_first().unwrap_or_else(|| {
            self.used.push(None);
            // Every vector has at most one number, and there are 2^24 vectors.
            u32::try_from(self.used.len() - 1).unwrap_or(u32::MAX)
        });
        let descriptor = Arc::new(make(Irq::new(number)));
        if let Some(place) = self.used.get_mut(number as usize) {
            *place = Some(descriptor.clone());
        }
        descriptor
    }

    /// Gives a number back.
    pub(crate) fn remove(&mut self, irq: Irq) {
        let place = self.used.get_mut(irq.get() as usize);
        if place.and_then(Option::take).is_some() {
            self.free.insert(irq.get());
        }
    }

    pub(crate) fn get(&self, irq: Irq) -> Option<Arc<Descriptor>> {
        self.used.get(irq.get() as usize)?.clone()
    }

    /// All interrupts by ascending number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Descriptor>> {
        self.used.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::{NewDescriptor, Source};
    use crate::irq::Flow;
    use alloc::sync::Arc;
    use core::num::NonZeroU16;
    use msi_types::{Cpu, MsiError, Pending, Trigger, Vector, WiredParent};

    /// A root controller that numbers have nothing to do with.
    struct Untouched;

    impl WiredParent for Untouched {
        fn claim(&self, _: Vector, _: NonZeroU16) -> Result<(), MsiError> {
            unreachable!()
        }
        fn release(&self, _: Vector, _: NonZeroU16) {
            unreachable!()
        }
        fn set_trigger(&self, _: Vector, _: Trigger) -> Result<(), MsiError> {
            unreachable!()
        }
        fn set_target(&self, _: Vector, _: Cpu) -> Result<(), MsiError> {
            unreachable!()
        }
        fn mask(&self, _: Vector) {
            unreachable!()
        }
        fn unmask(&self, _: Vector) {
            unreachable!()
        }
        fn set_pending(&self, _: Vector, _: Pending) {
            unreachable!()
        }
        fn is_pending(&self, _: Vector) -> bool {
            unreachable!()
        }
    }

    fn interrupt(irq: Irq) -> Descriptor {
        Descriptor::new(NewDescriptor {
            irq,
            vector: Vector::new(27),
            flow: Flow::PerCpu,
            source: Source::PerCpu(Arc::new(Untouched)),
            target: Cpu::new(0),
            among: None,
            cpus: 1,
            open: false,
        })
    }

    #[test]
    fn the_lowest_free_number_is_used_again_first() {
        let mut numbers = IrqNumbers::default();
        let made: Vec<_> = (0..4).map(|_| numbers.insert(interrupt).irq.get()).collect();
        assert_eq!(made, [0, 1, 2, 3]);
        numbers.remove(Irq::new(2));
        numbers.remove(Irq::new(0));
        let again: Vec<_> = (0..3).map(|_| numbers.insert(interrupt).irq.get()).collect();
        assert_eq!(again, [0, 2, 4]);
    }

    #[test]
    fn a_number_that_is_given_back_twice_is_free_once() {
        let mut numbers = IrqNumbers::default();
        numbers.insert(interrupt);
        numbers.remove(Irq::new(0));
        numbers.remove(Irq::new(0));
        assert_eq!(numbers.insert(interrupt).irq, Irq::new(0));
        assert_eq!(numbers.insert(interrupt).irq, Irq::new(1));
    }
}
