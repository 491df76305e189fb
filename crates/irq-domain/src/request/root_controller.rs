//! The root controller and its inputs, which requests claim; the state that is shared by handles,
//! devices and [`Interrupts`](crate::Interrupts); and owners of devices' domains and attachments.
//!
//! Lock order, outermost first. While a lock is held, no lock above it may be acquired:
//!
//! ```text
//! hotplug (TaskRwLock)
//! └─ a device's state; requests at the root, then a wired input's target (TaskLock)
//!    ├─ a device's attachment, then a layer's records, then its pages (TaskLock)
//!    └─ IRQ numbers, names (TaskLock)
//!       └─ an interrupt's control block (IrqLock)
//!          └─ the list of deferred frees, a store's mask bits (IrqLock); locks
//!             inside the controller
//! ```
//!
//! Handlers and devices are freed immediately if the caller that drops their owner may sleep, and
//! otherwise later in a task.

use crate::affinity::{CpuPool, first_reachable};
use crate::error::RequestError;
use crate::irq::control::Released;
use crate::irq::descriptor::Descriptor;
use crate::irq::registry::IrqRegistry;
use crate::irq::shared_line::MemberIndex;
use crate::runtime::Host;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;
use core::sync::atomic::{AtomicUsize, Ordering};
use doorbell_fallible::Shared;
use doorbell_fallible::lock::{IrqLock, TaskGuard, TaskLock};
use msi_types::{Cpu, HwIrq, MsiError, Trigger, WiredParent};

/// The root controller, if the core manages its wired interrupts, and the lock that serializes
/// requests for any controller's inputs.
pub(crate) struct RootController {
    parent: Option<Arc<dyn WiredParent>>,
    /// All vectors that have ever been requested as private interrupts.
    private: IrqLock<Vec<HwIrq>>,
    requests: TaskLock<()>,
}

impl RootController {
    pub(crate) const fn new(parent: Option<Arc<dyn WiredParent>>) -> Self {
        Self { parent, private: IrqLock::new(Vec::new()), requests: TaskLock::new(()) }
    }

    /// Returns the root controller.
    ///
    /// # Errors
    /// [`RequestError::NoWiredParent`] if the core was created without one.
    pub(crate) fn parent(&self) -> Result<&Arc<dyn WiredParent>, RequestError> {
        self.parent.as_ref().ok_or(RequestError::NoWiredParent)
    }

    /// Adds a vector to the list of private vectors. The caller must hold the lock from
    /// [`one_request`].
    ///
    /// Context: task; may sleep.
    ///
    /// [`one_request`]: Self::one_request
    pub(crate) fn note_private(
        &self,
        host: &dyn Host,
        hwirq: HwIrq,
    ) -> Result<(), TryReserveError> {
        let (known, count) = self.private.with(host, |list| (list.contains(&hwirq), list.len()));
        if known {
            return Ok(());
        }
        let mut grown = Vec::new();
        grown.try_reserve_exact(count + 1)?;
        // Free the old list outside the lock.
        let _former = self.private.with(host, |list| {
            grown.extend_from_slice(list);
            grown.push(hwirq);
            core::mem::replace(list, grown)
        });
        Ok(())
    }

    /// Unmasks the private interrupts that are enabled on the calling CPU, `cpu`.
    ///
    /// Context: any.
    pub(crate) fn unmask_private(&self, registry: &IrqRegistry, cpu: Cpu) {
        let Some(parent) = &self.parent else { return };
        self.private.with(registry.host(), |list| {
            for hwirq in list.iter().filter(|one| registry.dispatcher.is_enabled_on(cpu, **one)) {
                parent.unmask(*hwirq);
            }
        });
    }

    /// Acquires the lock under which a request looks for a free input and claims it.
    ///
    /// Context: task; may sleep.
    pub(crate) fn one_request(&self, host: &dyn Host) -> TaskGuard<'_, ()> {
        self.requests.lock(host)
    }
}

/// Masks a claimed input, then sets its trigger mode and CPU.
///
/// Context: task; may sleep.
pub(crate) fn prepare(
    parent: &dyn WiredParent,
    (hwirq, trigger): (HwIrq, Trigger),
    first_choice: Cpu,
    online: &[Cpu],
) -> Result<Cpu, MsiError> {
    parent.mask(hwirq);
    parent.set_trigger(hwirq, trigger)?;
    first_reachable(first_choice, online, |cpu| parent.set_target(hwirq, cpu).map(|()| cpu))
}

/// The parts of the interrupt core, each of which locks internally.
pub(crate) struct IrqCore {
    pub(crate) registry: IrqRegistry,
    pub(crate) pool: CpuPool,
    pub(crate) root: RootController,
    pub(crate) deferred: DeferredFree,
}

impl IrqCore {
    pub(crate) fn host(&self) -> &dyn Host {
        self.registry.host()
    }

    /// Frees objects that were dropped in a context that must not free memory. Does nothing if the
    /// caller may not wait.
    ///
    /// Context: task; may sleep.
    pub(crate) fn reclaim(&self) {
        self.deferred.reclaim(&self.registry);
    }
}

/// The owner of a device's domain or attachment. Its `drop` tears the object down, immediately if
/// the caller may wait and otherwise in a later task.
pub(crate) struct Owner {
    core: Shared<IrqCore>,
    tear_down: Option<Shared<Teardown>>,
}

impl Owner {
    /// Creates the owner of an object that `tear_down` tears down.
    ///
    /// Context: task; may sleep.
    pub(crate) fn try_new(
        core: &Shared<IrqCore>,
        tear_down: impl Fn(&IrqRegistry) + Send + Sync + 'static,
    ) -> Result<Self, TryReserveError> {
        let tear_down = Shared::<Teardown>::try_unsized(tear_down, |block| block)?;
        core.deferred.reserve(core.host())?;
        Ok(Self { core: core.clone(), tear_down: Some(tear_down) })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let IrqCore { deferred, registry, .. } = &*self.core;
        if let Some(tear_down) = self.tear_down.take() {
            deferred.release_owner(registry, tear_down);
        }
    }
}

/// A value that an owner shares with the core. The owner's `drop` can move the value into the list
/// of deferred frees.
pub(crate) struct TakenOnDrop<T>(Option<Shared<T>>);

impl<T> TakenOnDrop<T> {
    pub(crate) const fn new(shared: Shared<T>) -> Self {
        Self(Some(shared))
    }

    /// Takes the value. Must only be called by the owner's `drop`, and only once.
    pub(crate) fn take(&mut self) -> Option<Shared<T>> {
        self.0.take()
    }
}

impl<T> Deref for TakenOnDrop<T> {
    type Target = Shared<T>;

    fn deref(&self) -> &Shared<T> {
        self.0.as_ref().expect("only the owner's drop takes the value")
    }
}

/// Tears down a device's domain or attachment.
///
/// Context: task; may sleep.
pub(super) type Teardown = dyn Fn(&IrqRegistry) + Send + Sync;

/// An object whose owner was dropped, but which has not been freed yet.
enum Deferred {
    /// The interrupt or member behind a dropped handle.
    Handle(Shared<Descriptor>, Option<MemberIndex>, Released),
    /// A device's domain or attachment.
    Owner(Shared<Teardown>),
}

impl Deferred {
    const fn is_handle(&self) -> bool {
        matches!(self, Self::Handle(..))
    }
}

/// A list that can be extended in hard-IRQ context, without allocating. Room for an object is
/// reserved when the object is created, and released after it has been freed.
pub(crate) struct DeferredFree {
    list: IrqLock<Vec<Deferred>>,
    reserved: AtomicUsize,
}

impl DeferredFree {
    pub(crate) const fn new() -> Self {
        Self { list: IrqLock::new(Vec::new()), reserved: AtomicUsize::new(0) }
    }

    /// Frees objects that were dropped in a context that must not free memory, unless they are
    /// still in use. Does nothing if the caller may not wait.
    ///
    /// Context: task; may sleep.
    pub(crate) fn reclaim(&self, registry: &IrqRegistry) {
        let host = registry.host();
        if !host.may_wait() {
            return;
        }
        // Iterate backwards, because entries that are put back or added in the meantime are
        // appended.
        for index in (0..self.len(host)).rev() {
            match self.take_at(index, host, Deferred::is_handle) {
                Some(Deferred::Handle(descriptor, member, released))
                    if !registry.try_free_released(&descriptor, member, released) =>
                {
                    self.push(Deferred::Handle(descriptor, member, released), host);
                }
                Some(_) => self.unreserve(),
                None => {}
            }
        }
        while let Some(deferred) = self.take_any(host, |other| !other.is_handle()) {
            if let Deferred::Owner(tear_down) = deferred {
                tear_down(registry);
                self.unreserve();
            }
        }
    }

    /// Releases a handle's interrupt or member. If the caller may wait, waits until the handler has
    /// returned on all CPUs and frees it. Otherwise, a later task does both. The caller must have
    /// reserved room in the list.
    ///
    /// Context: any.
    pub(crate) fn release_handle(
        &self,
        registry: &IrqRegistry,
        descriptor: Shared<Descriptor>,
        member: Option<MemberIndex>,
    ) {
        let host = registry.host();
        let released = registry.interrupt(&descriptor).release(member);
        if !host.may_wait() {
            return self.push(Deferred::Handle(descriptor, member, released), host);
        }
        while !registry.try_free_released(&descriptor, member, released) {
            host.yield_now();
        }
        self.unreserve();
    }

    /// Tears down an owner's object, immediately if the caller may wait and otherwise in a later
    /// task. The caller must have reserved room in the list.
    ///
    /// Context: any.
    pub(super) fn release_owner(&self, registry: &IrqRegistry, tear_down: Shared<Teardown>) {
        if registry.host().may_wait() {
            tear_down(registry);
            self.unreserve();
        } else {
            self.push(Deferred::Owner(tear_down), registry.host());
        }
    }

    /// Reserves room for one more object.
    ///
    /// Context: task; may sleep.
    pub(crate) fn reserve(&self, host: &dyn Host) -> Result<(), TryReserveError> {
        let needed = self.reserved.fetch_add(1, Ordering::SeqCst) + 1;
        if self.list.lock(host).capacity() >= needed {
            return Ok(());
        }
        let mut roomier = Vec::new();
        roomier.try_reserve_exact(needed.next_power_of_two()).inspect_err(|_| self.unreserve())?;
        let mut list = self.list.lock(host);
        if list.capacity() < roomier.capacity() {
            roomier.append(&mut list);
            core::mem::swap(&mut *list, &mut roomier);
        }
        // Free the old list only after interrupts have been restored.
        drop(list);
        Ok(())
    }

    /// Releases the room that was reserved for an object.
    ///
    /// Context: any.
    pub(crate) fn unreserve(&self) {
        self.reserved.fetch_sub(1, Ordering::SeqCst);
    }

    /// Adds an object to be freed later. The caller must have reserved room for it.
    ///
    /// Context: any.
    fn push(&self, deferred: Deferred, host: &dyn Host) {
        self.list.lock(host).push(deferred);
    }

    fn len(&self, host: &dyn Host) -> usize {
        self.list.lock(host).len()
    }

    /// If the predicate `wanted` accepts the entry at `index`, removes the entry and moves the last
    /// one into its place.
    fn take_at(
        &self,
        index: usize,
        host: &dyn Host,
        wanted: fn(&Deferred) -> bool,
    ) -> Option<Deferred> {
        let mut list = self.list.lock(host);
        let found = list.get(index).is_some_and(wanted);
        found.then(|| list.swap_remove(index))
    }

    /// Removes an entry that the predicate `wanted` accepts, if the list contains one.
    fn take_any(&self, host: &dyn Host, wanted: fn(&Deferred) -> bool) -> Option<Deferred> {
        let mut list = self.list.lock(host);
        let index = list.iter().position(wanted)?;
        Some(list.swap_remove(index))
    }
}
