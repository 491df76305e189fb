//! Where handlers and devices go that were dropped inside a handler, until a task buries them.

use super::Interrupts;
use crate::descriptor::{Action, Descriptor, Source};
use crate::host::Host;
use crate::irq::Flow;
use crate::lock::IrqLock;
use crate::msi_device::{Domain, Share};
use crate::sync::Gate;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Something closed whose memory is still to be freed.
pub(crate) enum Grave {
    Handler(Arc<Descriptor>),
    Device(Arc<Domain>),
    Share(Arc<Share>),
}

/// A list that takes entries in hard-IRQ context without allocating: its room is made when what may end here is
/// made.
pub(crate) struct Graveyard {
    graves: IrqLock<Vec<Grave>>,
    reserved: AtomicUsize,
}

impl Graveyard {
    pub(crate) const fn new() -> Self {
        Self { graves: IrqLock::new(Vec::new()), reserved: AtomicUsize::new(0) }
    }

    /// Makes room for one more. Task.
    pub(crate) fn reserve(&self, host: &dyn Host) {
        let needed = self.reserved.fetch_add(1, Ordering::Relaxed) + 1;
        if self.graves.lock(host).capacity() >= needed {
            return;
        }
        let mut roomier = Vec::with_capacity(needed.next_power_of_two());
        let mut graves = self.graves.lock(host);
        if graves.capacity() < roomier.capacity() {
            roomier.append(&mut graves);
            core::mem::swap(&mut *graves, &mut roomier);
        }
    }

    /// The room of one is no longer needed. Any.
    pub(crate) fn unreserve(&self) {
        self.reserved.fetch_sub(1, Ordering::Relaxed);
    }

    /// Any; the room was made before.
    pub(crate) fn push(&self, grave: Grave, host: &dyn Host) {
        self.graves.lock(host).push(grave);
    }

    fn pop(&self, host: &dyn Host) -> Option<Grave> {
        self.graves.lock(host).pop()
    }
}

impl Interrupts {
    /// Frees what was dropped inside handlers and is no longer used. The operations that request, allocate and
    /// tear down do this by themselves; a kernel that does none of these for long calls it from time to time.
    /// Task.
    pub fn reclaim(&self) {
        if self.in_handler() {
            return;
        }
        let mut early = Vec::new();
        let mut devices = Vec::new();
        let mut shares = Vec::new();
        while let Some(grave) = self.graveyard.pop(self.host()) {
            match grave {
                Grave::Handler(descriptor) if self.try_bury(&descriptor) => {}
                Grave::Handler(descriptor) => early.push(descriptor),
                Grave::Device(domain) => devices.push(domain),
                Grave::Share(share) => shares.push(share),
            }
        }
        // Back before a device is torn down: that waits for its handlers, and they may be among these.
        for descriptor in early {
            self.graveyard.push(Grave::Handler(descriptor), self.host());
        }
        for domain in devices {
            // Nobody is left to hear of a store that failed.
            let _ = domain.tear_down(self);
        }
        for share in shares {
            self.leave_share(&share);
        }
    }

    pub(crate) fn reserve_grave(&self) {
        self.graveyard.reserve(self.host());
    }

    pub(crate) fn unreserve_grave(&self) {
        self.graveyard.unreserve();
    }

    /// Takes a closed handler out: at once and after it returned everywhere if the caller is a task, by a later
    /// task if the caller is a handler. Any.
    pub(crate) fn bury(&self, descriptor: &Arc<Descriptor>) {
        if self.in_handler() {
            return self.graveyard.push(Grave::Handler(descriptor.clone()), self.host());
        }
        while !self.try_bury(descriptor) {
            self.host.relax();
        }
    }

    /// Gives a device's domain up: at once if the caller is a task, by a later task if the caller is a handler.
    /// Any.
    pub(crate) fn bury_device(&self, domain: &Arc<Domain>) {
        if self.in_handler() {
            self.graveyard.push(Grave::Device(domain.clone()), self.host());
        } else {
            // Whoever wants to hear of a store that failed calls `MsiDevice::tear_down`.
            let _ = domain.tear_down(self);
        }
    }

    /// Gives a device's shared attachment up, likewise. Any.
    pub(crate) fn bury_share(&self, share: &Arc<Share>) {
        if self.in_handler() {
            self.graveyard.push(Grave::Share(share.clone()), self.host());
        } else {
            self.leave_share(share);
        }
    }

    /// Frees the closed handler as far as nobody uses it; true if that was all. Task.
    fn try_bury(&self, descriptor: &Arc<Descriptor>) -> bool {
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
            self.graveyard.unreserve();
        }
        done
    }

    /// Gives back what a request at the root took: the number, and the controller's input.
    fn release_root(&self, descriptor: &Descriptor) {
        match &descriptor.source {
            Source::Msi { .. } => return,
            Source::Wired(parent) => {
                let _not_while_it_moves = self.wired_targets.lock(self.host());
                parent.release(descriptor.vector, NonZeroU16::MIN);
            }
            Source::PerCpu(_) => {}
        }
        self.numbers.lock(self.host()).remove(descriptor.irq);
    }
}

/// Drops the handlers of idle closed gates, outside of any lock: their destructors are the kernel's code.
fn free_closed<'a>(gates: impl Iterator<Item = &'a Gate<Action>>) -> u32 {
    gates.fold(0, |taken, gate| taken + u32::from(gate.take().is_some()))
}
