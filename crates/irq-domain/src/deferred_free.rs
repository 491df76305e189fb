//! Objects that were dropped where their owner may not wait, for a task to free.

use crate::host::Host;
use crate::lock::IrqLock;
use crate::shared::Shared;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::Deref;
use core::sync::atomic::{AtomicUsize, Ordering};

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

/// A list that takes entries in hard-IRQ context without allocating: its room is made when what may
/// end here is made.
pub(crate) struct DeferredFree<T> {
    list: IrqLock<Vec<T>>,
    reserved: AtomicUsize,
}

impl<T> DeferredFree<T> {
    pub(crate) const fn new() -> Self {
        Self { list: IrqLock::new(Vec::new()), reserved: AtomicUsize::new(0) }
    }

    /// Makes room for one more. Task.
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

    /// The room of one is no longer needed. Any.
    pub(crate) fn unreserve(&self) {
        self.reserved.fetch_sub(1, Ordering::Relaxed);
    }

    /// Any; the room was made before.
    pub(crate) fn push(&self, deferred: T, host: &dyn Host) {
        self.list.lock(host).push(deferred);
    }

    pub(crate) fn len(&self, host: &dyn Host) -> usize {
        self.list.lock(host).len()
    }

    /// Takes the entry at `index` out, if it is one of those. The last takes its place.
    pub(crate) fn take_at(
        &self,
        index: usize,
        host: &dyn Host,
        wanted: fn(&T) -> bool,
    ) -> Option<T> {
        let mut list = self.list.lock(host);
        let found = list.get(index).is_some_and(wanted);
        found.then(|| list.swap_remove(index))
    }

    /// Takes any of those out.
    pub(crate) fn take_any(&self, host: &dyn Host, wanted: fn(&T) -> bool) -> Option<T> {
        let mut list = self.list.lock(host);
        let index = list.iter().position(wanted)?;
        Some(list.swap_remove(index))
    }
}
