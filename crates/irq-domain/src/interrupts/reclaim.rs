//! Objects that were dropped where their owner may not wait: a task frees them later.

use super::Interrupts;
use crate::descriptor::{Action, Descriptor, Presence, Source};
use crate::host::Host;
use crate::irq::Flow;
use crate::lock::IrqLock;
use crate::msi_device::{Domain, Share};
use crate::sync::{Gate, Shared};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use core::ops::Deref;
use core::sync::atomic::{AtomicUsize, Ordering};

/// A value that an owner shares with the core. Its `drop` can move it out: freeing it is then
/// somebody else's.
pub(crate) struct Owned<T>(Option<Shared<T>>);

impl<T> Owned<T> {
    pub(crate) const fn new(shared: Shared<T>) -> Self {
        Self(Some(shared))
    }

    /// For the owner's `drop`, once.
    pub(crate) fn take(&mut self) -> Option<Shared<T>> {
        self.0.take()
    }
}

impl<T> Deref for Owned<T> {
    type Target = Shared<T>;

    fn deref(&self) -> &Shared<T> {
        self.0.as_ref().expect("only the owner's drop takes it")
    }
}

/// Something whose memory is still to be freed.
pub(crate) enum Deferred {
    /// A handle's interrupt.
    Handle(Shared<Descriptor>, HandlerState),
    Device(Shared<Domain>),
    Share(Shared<Share>),
}

impl Deferred {
    const fn is_handle(&self) -> bool {
        matches!(self, Self::Handle(..))
    }
}

/// State of a dropped handle's handler.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandlerState {
    /// It is closed, and may still run.
    Closed,
    /// Nothing: it went with its device.
    Gone,
}

/// A list that takes entries in hard-IRQ context without allocating: its room is made when what may
/// end here is made.
pub(crate) struct DeferredFree {
    list: IrqLock<Vec<Deferred>>,
    reserved: AtomicUsize,
}

impl DeferredFree {
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
    pub(crate) fn push(&self, deferred: Deferred, host: &dyn Host) {
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

impl Interrupts {
    /// Frees what was dropped where it could not be freed, and is no longer used. The operations
    /// that request, allocate and tear down do this by themselves; a kernel that does none of these
    /// for long calls it from time to time. Task; nothing elsewhere.
    pub fn reclaim(&self) {
        if !self.host.may_wait() {
            return;
        }
        // Backwards: entries that are put back, or come meanwhile, stand behind.
        for index in (0..self.deferred.len(self.host())).rev() {
            match self.deferred.take_at(index, self.host(), Deferred::is_handle) {
                Some(Deferred::Handle(descriptor, HandlerState::Closed))
                    if !self.try_free_handler(&descriptor) =>
                {
                    self.deferred
                        .push(Deferred::Handle(descriptor, HandlerState::Closed), self.host());
                }
                Some(_) => self.deferred.unreserve(),
                None => {}
            }
        }
        while let Some(deferred) = self.deferred.take_any(self.host(), |other| !other.is_handle()) {
            match deferred {
                Deferred::Handle(..) => {}
                // Nobody is left to hear of a store that failed.
                Deferred::Device(domain) => drop(Domain::tear_down(&domain, self)),
                Deferred::Share(share) => self.leave_share(&share),
            }
        }
    }

    pub(crate) fn reserve_deferred(&self) -> Result<(), TryReserveError> {
        self.deferred.reserve(self.host())
    }

    pub(crate) fn unreserve_deferred(&self) {
        self.deferred.unreserve();
    }

    /// Ends what a handle owns: at once, and after its handler returned everywhere, if the caller
    /// may wait; else a later task does. Any.
    pub(crate) fn release_handle(&self, descriptor: Shared<Descriptor>) {
        let closed = self.close(&descriptor, Presence::Vacant);
        if !self.host.may_wait() {
            let state = if closed { HandlerState::Closed } else { HandlerState::Gone };
            return self.deferred.push(Deferred::Handle(descriptor, state), self.host());
        }
        if closed {
            self.free_handler(&descriptor);
        }
        self.deferred.unreserve();
    }

    /// Takes a closed handler out, after it returned everywhere: one whose handle was dropped
    /// before, too, by another task or where it could not wait. Task.
    pub(crate) fn free_handler(&self, descriptor: &Descriptor) {
        while !self.try_free_handler(descriptor) {
            self.host.yield_now();
        }
    }

    /// Gives a device's domain up: at once if the caller may wait, else by a later task. Any.
    pub(crate) fn release_device(&self, domain: Shared<Domain>) {
        if self.host.may_wait() {
            // `MsiDevice::tear_down` is for callers that want the error of the store.
            let _ = Domain::tear_down(&domain, self);
        } else {
            self.deferred.push(Deferred::Device(domain), self.host());
        }
    }

    /// Gives a device's shared attachment up, likewise. Any.
    pub(crate) fn release_share(&self, share: Shared<Share>) {
        if self.host.may_wait() {
            self.leave_share(&share);
        } else {
            self.deferred.push(Deferred::Share(share), self.host());
        }
    }

    /// Frees the closed handler as far as nobody uses it; true if that was all. Task.
    fn try_free_handler(&self, descriptor: &Descriptor) -> bool {
        let slot = self.slot(descriptor);
        let taken = match descriptor.flow {
            Flow::Edge | Flow::Level => free_closed(core::iter::once(&slot.shared)),
            Flow::PerCpu => free_closed(slot.all_private()),
        };
        let done = {
            let mut control = descriptor.control.lock(self.host());
            control.closing = control.closing.saturating_sub(taken);
            control.closing == 0
        };
        if done {
            self.release_root(descriptor);
        }
        done
    }

    /// Gives back what a request at the root took: the number, and the controller's input.
    fn release_root(&self, descriptor: &Descriptor) {
        match &descriptor.source {
            Source::Msi { .. } => return,
            Source::Wired(parent) => {
                let _not_while_it_moves = self.wired_targets.lock(self.host());
                parent.release(descriptor.hwirq, NonZeroU16::MIN);
            }
            Source::PerCpu(_) => {}
        }
        self.numbers.lock(self.host()).remove(descriptor.irq);
    }
}

/// Drops the handlers of idle closed gates, outside of any lock: their destructors are the kernel's
/// code.
fn free_closed<'a>(gates: impl Iterator<Item = &'a Gate<Action>>) -> u32 {
    gates.fold(0, |taken, gate| taken + u32::from(gate.take().is_some()))
}
