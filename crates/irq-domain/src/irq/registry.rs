//! The registry of interrupts: descriptors by number, and dispatch by hwirq. Numbers are dense,
//! because the lowest free one is always allocated first.

use crate::irq::control::Released;
use crate::irq::descriptor::{Descriptor, NewDescriptor, Source};
use crate::irq::dispatch::{Dispatcher, IrqRef};
use crate::irq::shared_line::MemberIndex;
use crate::name::Irq;
use crate::runtime::{Host, Runtime};
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::Shared;
use doorbell_fallible::lock::TaskLock;
use msi_types::{Cpu, HwIrq, Pending};

/// All existing interrupts. A descriptor's entry in the dispatch table exists for as long as the
/// descriptor does.
pub(crate) struct IrqRegistry {
    pub(crate) dispatcher: Dispatcher,
    numbers: TaskLock<IrqMap>,
}

impl IrqRegistry {
    /// Creates an empty registry, with all CPUs offline.
    pub(crate) fn try_new(host: Arc<dyn Host>, cpus: u16) -> Result<Self, TryReserveError> {
        let numbers = TaskLock::new(IrqMap::default());
        Ok(Self { dispatcher: Dispatcher::try_new(host, cpus)?, numbers })
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.dispatcher.runtime
    }

    pub(crate) fn host(&self) -> &dyn Host {
        self.runtime().host()
    }

    /// Returns an existing interrupt and its handler cells.
    ///
    /// Context: any.
    pub(crate) fn interrupt<'a>(&'a self, descriptor: &'a Descriptor) -> IrqRef<'a> {
        self.dispatcher.interrupt(descriptor)
    }

    /// Assigns a number to an interrupt whose entry in the dispatch table already exists.
    ///
    /// Context: task; may sleep.
    pub(crate) fn insert(
        &self,
        new: impl FnOnce(Irq) -> NewDescriptor,
    ) -> Result<Shared<Descriptor>, TryReserveError> {
        self.numbers.lock(self.host()).insert(|irq| Descriptor::new(new(irq)))
    }

    /// Frees the number of a device's interrupt, which must not have a handler. The vector may be
    /// reused afterwards.
    ///
    /// Context: task; may sleep.
    pub(crate) fn retire(&self, descriptor: &Descriptor) {
        self.interrupt(descriptor).entry.shared.forget();
        self.numbers.lock(self.host()).remove(descriptor.irq);
    }

    /// Frees the number of a wired or private interrupt, and releases the controller's input.
    ///
    /// Context: task; may sleep.
    pub(crate) fn release_root(&self, descriptor: &Descriptor) {
        match &descriptor.source {
            Source::Device(_) => return,
            Source::Wired(input) => input.release(self.host(), descriptor.hwirq),
            Source::PerCpu(_) => {}
        }
        self.numbers.lock(self.host()).remove(descriptor.irq);
    }

    /// Removes and frees a closed handler once it has returned on all CPUs. This also works if the
    /// handle was dropped earlier, e.g. by another task or in a context that could not wait.
    ///
    /// Context: task; may sleep.
    pub(crate) fn free_handler(&self, descriptor: &Descriptor) {
        while !self.try_free_handler(descriptor) {
            self.host().yield_now();
        }
    }

    /// Drops an arrival of a vector without a handler that shares a line, and waits until the
    /// line's handler no longer uses one that it read before. Otherwise, the next owner of the
    /// vector could get it. The vector's device must be silent.
    ///
    /// Context: task; may sleep.
    pub(crate) fn leave_line(&self, descriptor: &Descriptor) {
        if let Some(line) = descriptor.line() {
            descriptor.source.set_pending(descriptor.hwirq, Pending::Clear);
            self.interrupt(line).synchronize();
        }
    }

    /// Frees the closed handler in all cells that are not in use. Returns `true` if no closed cell
    /// remains.
    ///
    /// Context: task; may sleep.
    pub(crate) fn try_free_handler(&self, descriptor: &Descriptor) -> bool {
        self.try_free_released(descriptor, None, Released::Interrupt)
    }

    /// Frees the parts of a released interrupt or member that are not in use. Returns `true` if
    /// every part was freed.
    ///
    /// Context: task; may sleep.
    pub(crate) fn try_free_released(
        &self,
        descriptor: &Descriptor,
        member: Option<MemberIndex>,
        released: Released,
    ) -> bool {
        // The members' handlers only run while the line's own handler is running.
        if released == Released::Interrupt && !self.interrupt(descriptor).try_free() {
            return false;
        }
        let member = descriptor.shared_line().zip(member);
        let taken = member.map(|(line, index)| line.take(self.host(), index).is_some());
        match released {
            Released::Member => taken == Some(true),
            Released::Interrupt => {
                self.release_root(descriptor);
                true
            }
            Released::Before => true,
        }
    }

    /// Returns the interrupt with this hwirq, if `wanted` accepts its source.
    ///
    /// Context: task; may sleep.
    pub(crate) fn find_hwirq(
        &self,
        hwirq: HwIrq,
        wanted: impl Fn(&Source) -> bool,
    ) -> Option<Shared<Descriptor>> {
        self.numbers.lock(self.host()).find(|one| one.hwirq == hwirq && wanted(&one.source))
    }

    pub(crate) fn find(&self, irq: Irq) -> Option<Shared<Descriptor>> {
        self.numbers.lock(self.host()).get(irq)
    }

    /// Iterates over the interrupts in ascending order. Doesn't allocate or hold a lock between
    /// items, so interrupts may be created and freed during the iteration.
    pub(crate) fn each(&self) -> impl Iterator<Item = Shared<Descriptor>> {
        let mut next = Irq::new(0);
        core::iter::from_fn(move || {
            let found = self.numbers.lock(self.host()).first_from(next)?;
            next = Irq::new(found.irq.get().saturating_add(1));
            Some(found)
        })
    }

    /// Calls `use_them` with an iterator over the targets of all managed interrupts.
    ///
    /// Context: task; may sleep.
    pub(crate) fn with_managed_targets<R>(
        &self,
        use_them: impl FnOnce(&mut dyn Iterator<Item = Cpu>) -> R,
    ) -> R {
        use_them(&mut self.numbers.lock(self.host()).managed_targets())
    }
}

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
