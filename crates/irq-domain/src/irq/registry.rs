//! The registry of interrupts: descriptors by number, and dispatch by hwirq.

use crate::irq::control::Released;
use crate::irq::descriptor::{Descriptor, NewDescriptor, Source};
use crate::irq::dispatch::Dispatcher;
use crate::irq::manage::IrqRef;
use crate::irq::map::IrqMap;
use crate::irq::shared_line::MemberIndex;
use crate::name::Irq;
use crate::runtime::{Host, Runtime};
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
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
