//! Release of handlers and devices: at once, or later by a task.

use super::{Deferred, HandlerState, Interrupts, Teardown};
use crate::control::HandlerPhase;
use crate::descriptor::{Descriptor, Source};
use crate::shared::Shared;
use alloc::collections::TryReserveError;

impl Interrupts {
    /// Frees what was dropped where it could not be freed, and is no longer used. The operations
    /// that request, allocate and tear down do this by themselves; a kernel that does none of these
    /// for long calls it from time to time. Task; nothing elsewhere.
    pub fn reclaim(&self) {
        if !self.host().may_wait() {
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
            if let Deferred::Owner(owner) = deferred {
                owner.tear_down(self);
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
        let closed = self.interrupt(&descriptor).close(HandlerPhase::Vacant);
        if !self.host().may_wait() {
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
            self.host().yield_now();
        }
    }

    /// Tears down what a device's handle owns: at once if the caller may wait, else by a later
    /// task. Any.
    pub(crate) fn release_owner(&self, owner: Shared<dyn Teardown>) {
        if self.host().may_wait() {
            owner.tear_down(self);
        } else {
            self.deferred.push(Deferred::Owner(owner), self.host());
        }
    }

    /// Frees the closed handler as far as nobody uses it; true if that was all. Task.
    fn try_free_handler(&self, descriptor: &Descriptor) -> bool {
        let done = self.interrupt(descriptor).try_free();
        if done {
            self.release_root(descriptor);
        }
        done
    }

    /// Gives back what a request at the root took: the number, and the controller's input.
    fn release_root(&self, descriptor: &Descriptor) {
        match &descriptor.source {
            Source::Device(_) => return,
            Source::Wired(parent) => {
                self.root.release(self.host(), &**parent, descriptor.hwirq);
            }
            Source::PerCpu(_) => {}
        }
        self.numbers.lock(self.host()).remove(descriptor.irq);
    }

    /// Gives the number of an interrupt without handler back. Its vector may be another's next.
    /// Task.
    pub(crate) fn retire(&self, descriptor: &Descriptor) {
        self.interrupt(descriptor).entry.shared.forget();
        self.numbers.lock(self.host()).remove(descriptor.irq);
    }
}
