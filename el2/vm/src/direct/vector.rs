//! A function's vector, and what injects its messages directly.

use crate::guest::{self, Guest};
use crate::injection::{HAS_FAILED, Injection};
use crate::scheduler::{self, VcpuId};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::mem;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use gic_arch::Lpi;
use gic_arch::lpi::Config;
use gic_driver::ItsError;
use gic_driver::its::{DirectEvent, VirtualLpi};
use image_rt::println;
use msi_types::{Cpu, DeviceId, EventId, MessageStore, MsiMessage, Pending};
use vgic::DirectTarget;
use vgic::its::ItsConfig;

/// A function's vector as the guest sees it.
pub trait GuestVector: Send {
    /// Returns the message that the guest wrote, if it lets the function send it.
    fn message(&self) -> Option<MsiMessage>;
}

/// A function's vector.
pub(super) struct Vector {
    /// Number of the guest.
    pub(super) owner: usize,
    pub(super) guest: Box<dyn GuestVector>,
    pub(super) device: DeviceId,
    pub(super) store: Arc<dyn MessageStore>,
    pub(super) slot: u16,
    pub(super) physical: Lpi,
    /// The guest's event, as of the last time that the guest let the function send it.
    pub(super) event: Option<EventId>,
    pub(super) is_open: bool,
    /// `true` if messages may be on their way through the hypervisor.
    pub(super) has_sent: bool,
    pub(super) direct: Option<(DirectEvent, Config)>,
}

impl Vector {
    fn mask(&self) {
        if let Some(mask) = self.store.fast_mask() {
            mask.mask(self.slot);
        }
    }

    /// Unmasks the vector, if the guest does.
    pub(super) fn unmask(&mut self) {
        if let Some(mask) = self.store.fast_mask().filter(|_| self.is_open) {
            mask.unmask(self.slot);
        }
        self.has_sent |= self.is_open && self.direct.is_none();
    }

    /// Returns `true` if the vector stays masked until its event is handed over. The function then
    /// keeps its messages, so none is on its way when the event is handed over.
    pub(super) fn waits(&self) -> bool {
        let may_be_handed_over = self.event.is_some() && !HAS_FAILED.load(SeqCst);
        self.direct.is_none() && may_be_handed_over && self.store.fast_mask().is_some()
    }

    /// Follows the guest's mask. Returns the event of a vector that the guest has just unmasked,
    /// and that is still masked here. A message to another address than `doorbell` stays with the
    /// hypervisor, and so does that of a vector without an event unless `has_room` is set.
    pub(super) fn follow_mask(
        &mut self,
        injection: &Injection,
        doorbell: u64,
        has_room: bool,
    ) -> Option<EventId> {
        let message = self.guest.message();
        let was_open = mem::replace(&mut self.is_open, message.is_some());
        let Some(message) = message else {
            if was_open {
                self.mask();
            }
            return None;
        };
        let is_its = (has_room || self.event.is_some()) && message.address == doorbell;
        let event = is_its.then_some(EventId::new(message.data));
        if was_open && self.event == event {
            return None;
        }
        self.mask();
        if self.event != event {
            self.give_up(injection, false);
        }
        self.event = event;
        if event.is_none() {
            self.unmask();
        }
        event
    }

    /// Makes the event's mapping agree with its translation by the guest's ITS.
    pub(super) fn apply(&mut self, injection: &Injection, target: Option<DirectTarget>) {
        let was_pending = target.is_some_and(|target| target.pending);
        if !injection.may_hand_over() {
            return self.give_up(injection, was_pending);
        }
        if let Err(error) = self.try_apply(injection, target) {
            report_first(&error);
            self.give_up(injection, was_pending);
            self.unmask();
        }
    }

    /// Takes the event back although the guest's ITS still translates it. If the event was direct,
    /// or if it `was_pending` in the model, makes its LPI pending in the model.
    pub(super) fn give_up(&mut self, injection: &Injection, was_pending: bool) {
        if self.take_back(injection) | was_pending
            && let Some(event) = self.event
        {
            signal(self.owner, self.device, event);
        }
    }

    fn try_apply(
        &mut self,
        injection: &Injection,
        target: Option<DirectTarget>,
    ) -> Result<(), ItsError> {
        let vpes = &injection.vpes;
        let Some(DirectTarget { lpi, cpu, config, pending, .. }) = target else {
            self.take_back(injection);
            return Ok(());
        };
        let to = VirtualLpi { vpe: cpu.get() as u16, lpi };
        let direct = self.direct.as_mut();
        if let Some((event, current)) = direct.filter(|(event, _)| event.target().lpi == lpi) {
            if mem::replace(current, config) != config {
                vpes.configure(lpi, config)?;
                vpes.invalidate(event)?;
            } else if event.target() == to && !pending {
                return Ok(());
            }
            if event.target() != to {
                vpes.move_event(event, to.vpe)?;
            }
            if pending {
                vpes.set_pending(event, Pending::Set)?;
            }
            // Neither VMOVI nor INV of a pending LPI need ring the doorbell.
            if vpes.wake(to.vpe) {
                kick(self.owner, cpu);
            }
            return Ok(());
        }
        self.mask();
        self.take_back(injection);
        vpes.configure(lpi, config)?;
        let (event, _) = self.direct.insert((vpes.hand_over(self.physical, to)?, config));
        // The redistributor may have cached the configuration of an earlier owner.
        vpes.invalidate(event)?;
        if mem::take(&mut self.has_sent) | pending {
            vpes.set_pending(event, Pending::Set)?;
        }
        self.unmask();
        Ok(())
    }

    /// Masks the vector, and maps the event to its physical LPI again. Returns `true` if the event
    /// was direct; its virtual LPI may have been pending.
    pub(super) fn take_back(&mut self, injection: &Injection) -> bool {
        let Some((event, _)) = self.direct.take() else { return false };
        self.mask();
        self.has_sent |= self.is_open && self.store.fast_mask().is_none();
        if let Err(error) = injection.vpes.take_back(event) {
            report_first(&error);
        }
        true
    }
}

/// Signals the message of a guest's event to the model.
pub(super) fn signal(owner: usize, device: DeviceId, event: EventId) {
    let Some(vgic) = guest::guests().get(owner).map(Guest::vgic) else { return };
    let message = |its: &ItsConfig| MsiMessage { address: its.doorbell(), data: event.get() };
    let message = vgic.config().its.first().map(message);
    // The model drops the message if LPIs have been disabled since.
    _ = vgic.its(0).zip(message).map(|(its, message)| its.signal_msi(device, message));
}

/// Prints the error, but only the first one, because a guest could otherwise flood the console.
pub(super) fn report_first(error: &ItsError) {
    static HAS_PRINTED: AtomicBool = AtomicBool::new(false);
    if !HAS_PRINTED.swap(true, SeqCst) {
        println!("hypervisor: direct injection: {error}");
    }
}

pub(super) fn kick(guest: usize, cpu: Cpu) {
    scheduler::kick(VcpuId { guest, cpu });
}
