//! Direct injection (GICv4.0): events that are mapped to virtual LPIs, so that their messages reach
//! the guest without its hypervisor.
//!
//! An event is handed over with all its commands in one batch: DISCARD and SYNC, so that the
//! redistributor forgets the physical LPI, and only then VMAPTI and VSYNC. A message that arrives
//! in between finds no mapping and is lost, and DISCARD removes a physical LPI that no CPU has
//! acknowledged. Therefore callers either mask the event's source, and let earlier messages be
//! acknowledged, or [set the event pending](VpeSet::set_pending) afterwards.

use super::Its;
use super::error::{ItsError, fault};
use super::routes::EventRoute;
use super::vpe::VpeSet;
use crate::platform::GicPlatform;
use alloc::sync::Arc;
use core::mem;
use gic_arch::Lpi;
use gic_arch::its::{Command, VirtualCommand};
use msi_types::Pending;

/// A virtual LPI of a vPE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VirtualLpi {
    /// Index of the vPE in its [set](VpeSet).
    pub vpe: u16,
    /// INTID in the guest.
    pub lpi: Lpi,
}

/// An event that is mapped to a virtual LPI. Its physical LPI is not [mapped](super::Its::event_of)
/// until the event is [taken back](VpeSet::take_back), which must happen before its block is
/// unmapped or its device detached.
#[must_use]
#[derive(Debug)]
#[doc(alias = "its_vlpi_map")]
pub struct DirectEvent {
    /// Index of the event's ITS in the set.
    its: usize,
    physical: Lpi,
    route: EventRoute,
    to: VirtualLpi,
}

impl DirectEvent {
    /// Returns the virtual LPI.
    pub const fn target(&self) -> VirtualLpi {
        self.to
    }
}

impl<P: GicPlatform> VpeSet<P> {
    /// Maps the event of a physical LPI to a virtual LPI instead. On return, its messages make the
    /// virtual LPI pending. A message that arrives in the meantime is lost. Therefore callers
    /// either mask the event's source, and let earlier messages be acknowledged, or
    /// [set the event pending](Self::set_pending) afterwards.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the LPI is not mapped, or if the virtual LPI is out of range.
    /// [`ItsError::Fault`] if a command fails; the event is then mapped to its physical LPI again,
    /// unless the ITS doesn't respond. Any error of [`load`](Self::load) if the vPE is loaded; the
    /// event is then unchanged.
    pub fn hand_over(&self, physical: Lpi, to: VirtualLpi) -> Result<DirectEvent, ItsError> {
        self.check(to.lpi)?;
        let vpe = self.id(to.vpe)?;
        let mut all = self.all().enumerate();
        let owner = all.find(|(_, its)| its.routes.of(physical).is_some());
        let (index, its) = owner.ok_or(ItsError::NotMapped(physical))?;
        self.add_event(to.vpe)?;
        let mut found = None;
        its.queue.in_order(&its.frame, || {
            found = its.routes.of(physical).and_then(|route| {
                let target = its.collections.target(route.collection)?;
                its.routes.set(physical, None);
                Some((route, target))
            });
        });
        let Some((route, target)) = found else {
            self.remove_event(to.vpe)?;
            return Err(ItsError::NotMapped(physical));
        };
        let (device, event) = (route.device, route.event_id());
        let (intid, doorbell) = (to.lpi.get(), self.doorbell(to.vpe).map(Lpi::get));
        let handed_over = DirectEvent { its: index, physical, route, to };
        let result = its.run_virtual([
            Command::Discard { device, event }.encode(),
            Command::Sync { target }.encode(),
            VirtualCommand::Vmapti { device, event, vpe, intid, doorbell }.encode(),
            VirtualCommand::Vsync { vpe }.encode(),
        ]);
        match result {
            Ok(()) => Ok(handed_over),
            Err(error) => {
                if let Err(second) = self.take_back(handed_over) {
                    its.note(second);
                }
                Err(error)
            }
        }
    }

    /// Maps an event to its physical LPI again, at its previous CPU or, if that is offline, at any
    /// other. On return, its messages make the physical LPI pending, and the virtual LPI is no
    /// longer pending. Callers must assume that it was: GICv4.0 does not tell, because the
    /// redistributor of a resident vPE may hold pending state that isn't in the vPE's table. So the
    /// guest may take a superfluous interrupt. Messages may be lost as in
    /// [`hand_over`](Self::hand_over).
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if a command fails, or if no CPU is online.
    #[expect(clippy::needless_pass_by_value, reason = "callers give up the event")]
    pub fn take_back(&self, event: DirectEvent) -> Result<(), ItsError> {
        let its = self.its_of(&event);
        let DirectEvent { physical, route, to, .. } = event;
        let vpe = self.id(to.vpe)?;
        let bound = its.collections.target(route.collection);
        let other = || its.collections.any_target().and_then(|it| its.collections.of_target(it));
        let collection = bound.map(|_| route.collection).or_else(other);
        let found = collection.and_then(|id| Some((id, its.collections.target(id)?)));
        let (collection, target) =
            found.ok_or(fault(its.base(), "MAPTI", "no CPU can take the LPI"))?;
        let (device, event) = (route.device, route.event_id());
        let intid = physical.get();
        let route = EventRoute { collection, ..route };
        its.queue.in_order(&its.frame, || its.routes.set(physical, Some(route)));
        // DISCARD clears the pending bit (IHI 0069, "virtual LPIs").
        let result = its.run_virtual([
            Command::Discard { device, event }.encode(),
            VirtualCommand::Vsync { vpe }.encode(),
            Command::Mapti { device, event, intid, collection }.encode(),
            Command::Sync { target }.encode(),
        ]);
        self.remove_event(to.vpe)?;
        result
    }

    /// Moves an event to another vPE together with its pending state, and
    /// [invalidates](Self::invalidate) its virtual LPI there. No message is lost.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if the set has no such vPE, or if a command fails. Any error of
    /// [`load`](Self::load) if the new vPE is loaded. After an error, the event must be
    /// [taken back](Self::take_back).
    pub fn move_event(&self, moved: &mut DirectEvent, to: u16) -> Result<(), ItsError> {
        let (device, event) = (moved.route.device, moved.route.event_id());
        let (from, vpe) = (self.id(moved.to.vpe)?, self.id(to)?);
        let doorbell = self.doorbell(to).map(Lpi::get);
        self.add_event(to)?;
        let result = self.its_of(moved).run_virtual([
            VirtualCommand::Vmovi { device, event, vpe, doorbell }.encode(),
            VirtualCommand::Vsync { vpe: from }.encode(),
            Command::Inv { device, event }.encode(),
            VirtualCommand::Vsync { vpe }.encode(),
        ]);
        let left = if result.is_ok() { mem::replace(&mut moved.to.vpe, to) } else { to };
        self.remove_event(left)?;
        result
    }

    /// Makes a virtual LPI pending, as a message from its device would, or clears its pending
    /// state.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if a command fails.
    pub fn set_pending(&self, event: &DirectEvent, pending: Pending) -> Result<(), ItsError> {
        let EventRoute { device, .. } = event.route;
        let id = event.route.event_id();
        self.run_on(
            event,
            match pending {
                Pending::Set => Command::Int { device, event: id },
                Pending::Clear => Command::Clear { device, event: id },
            },
        )
    }

    /// Makes the [configuration](Self::configure) of an event's virtual LPI take effect.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if a command fails.
    pub fn invalidate(&self, event: &DirectEvent) -> Result<(), ItsError> {
        let EventRoute { device, .. } = event.route;
        self.run_on(event, Command::Inv { device, event: event.route.event_id() })
    }

    fn run_on(&self, event: &DirectEvent, command: Command) -> Result<(), ItsError> {
        let vpe = self.id(event.to.vpe)?;
        let sync = VirtualCommand::Vsync { vpe };
        self.its_of(event).run_virtual([command.encode(), sync.encode()])
    }

    fn its_of(&self, event: &DirectEvent) -> &Arc<Its<P>> {
        self.all().nth(event.its).unwrap_or(&self.its)
    }
}
