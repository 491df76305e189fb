//! Release of handlers and devices: at once, or later by a task if they were dropped where their
//! owner may not wait.

use crate::host::Host;
use crate::irq::control::Released;
use crate::irq::descriptor::Descriptor;
use crate::irq::registry::IrqRegistry;
use crate::irq::shared_line::MemberIndex;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::Deref;
use core::sync::atomic::{AtomicUsize, Ordering};
use doorbell_fallible::Shared;
use doorbell_lock::IrqLock;

/// A value that an owner shares with the core. Its `drop` can move it out: freeing it is then
/// somebody else's.
pub(crate) struct TakenOnDrop<T: ?Sized>(Option<Shared<T>>);

impl<T: ?Sized> TakenOnDrop<T> {
    pub(crate) const fn new(shared: Shared<T>) -> Self {
        Self(Some(shared))
    }

    /// For the owner's `drop`, once.
    pub(crate) fn take(&mut self) -> Option<Shared<T>> {
        self.0.take()
    }
}

impl<T: ?Sized> Deref for TakenOnDrop<T> {
    type Target = Shared<T>;

    fn deref(&self) -> &Shared<T> {
        self.0.as_ref().expect("only the owner's drop takes it")
    }
}

/// Something that a handle owns and its drop tears down.
pub(crate) trait Teardown: Send + Sync {
    /// Context: task; may sleep.
    fn tear_down(&self, registry: &IrqRegistry);
}

/// Something that is still to be freed.
enum Deferred {
    /// A handle's interrupt.
    Handle(Shared<Descriptor>, Option<MemberIndex>, Released),
    /// A device's domain, or its attachment.
    Owner(Shared<dyn Teardown>),
}

impl Deferred {
    const fn is_handle(&self) -> bool {
        matches!(self, Self::Handle(..))
    }
}

/// A list that takes entries in hard-IRQ context without allocating. Its room is made when what may
/// end here is made, and kept until that was freed.
pub(crate) struct DeferredFree {
    list: IrqLock<Vec<Deferred>>,
    reserved: AtomicUsize,
}

impl DeferredFree {
    pub(crate) const fn new() -> Self {
        Self { list: IrqLock::new(Vec::new()), reserved: AtomicUsize::new(0) }
    }

    /// Frees objects that were dropped in a context that must not free them, once they are no
    /// longer used. Does nothing in a context that may not wait.
    ///
    /// Context: task; may sleep.
    pub(crate) fn reclaim(&self, registry: &IrqRegistry) {
        let host = registry.host();
        if !host.may_wait() {
            return;
        }
        // Backwards: entries that are put back, or come meanwhile, stand behind.
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
            if let Deferred::Owner(owner) = deferred {
                self.tear_down(registry, &*owner);
            }
        }
    }

    /// Releases the interrupt or member that a handle owns. If the caller may wait, waits until the
    /// handler has returned on all CPUs and frees it; otherwise a later task frees it. Room must
    /// have been reserved.
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

    /// Tears down the device that a handle owns: immediately if the caller may wait, otherwise in a
    /// later task. Room must have been reserved.
    ///
    /// Context: any.
    pub(crate) fn release_owner(&self, registry: &IrqRegistry, owner: Shared<dyn Teardown>) {
        if registry.host().may_wait() {
            self.tear_down(registry, &*owner);
        } else {
            self.push(Deferred::Owner(owner), registry.host());
        }
    }

    fn tear_down(&self, registry: &IrqRegistry, owner: &dyn Teardown) {
        owner.tear_down(registry);
        self.unreserve();
    }

    /// Reserves room for one more deferred object.
    ///
    /// Context: task; may sleep.
    pub(crate) fn reserve(&self, host: &dyn Host) -> Result<(), TryReserveError> {
        let needed = self.reserved.fetch_add(1, Ordering::Relaxed) + 1;
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
        // The old list is freed with interrupts as they were.
        drop(list);
        Ok(())
    }

    /// Releases the room of one object.
    ///
    /// Context: any.
    pub(crate) fn unreserve(&self) {
        self.reserved.fetch_sub(1, Ordering::Relaxed);
    }

    /// Adds a deferred object. Its room must have been reserved.
    ///
    /// Context: any.
    fn push(&self, deferred: Deferred, host: &dyn Host) {
        self.list.lock(host).push(deferred);
    }

    fn len(&self, host: &dyn Host) -> usize {
        self.list.lock(host).len()
    }

    /// Takes the entry at `index` out, if it is one of those. The last takes its place.
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

    /// Takes any of those out.
    fn take_any(&self, host: &dyn Host, wanted: fn(&Deferred) -> bool) -> Option<Deferred> {
        let mut list = self.list.lock(host);
        let index = list.iter().position(wanted)?;
        Some(list.swap_remove(index))
    }
}
