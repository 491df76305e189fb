//! Operations on mapped events: moving them between CPUs, masking, invalidating, and setting
//! pending state.

use super::Its;
use super::command_queue::FailedRun;
use super::devices::made_in_order;
use super::error::{ItsError, QueueError};
use super::hardware::Context;
use super::routes::{EventRoute, cpu_of};
use crate::platform::GicPlatform;
use gic_arch::its::{Command, RdBase};
use gic_arch::{Lpi, Priority};
use msi_types::{Cpu, DeviceId, EventId, MsiMessage, Pending};

impl<P: GicPlatform> Its<P> {
    /// Moves an event and its pending state to another CPU. The event's message does not change. On
    /// return, the event can no longer become pending at the old CPU. Returns the old CPU. Callers
    /// must not move the same LPI concurrently.
    ///
    /// A masked LPI may be signaled once at its new CPU before this returns: the redistributor may
    /// have cached an old configuration of the LPI, and this can only be invalidated after the
    /// event has moved there (INV follows MOVI; IHI 0069 §5.3). Kernels must be able to record
    /// interrupts that arrive while disabled.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the LPI is not mapped, [`ItsError::NotReachable`] if the CPU is
    /// off, or [`ItsError::Fault`] if a command fails. On error, the event was not moved.
    pub fn move_event(&self, lpi: Lpi, to: Cpu) -> Result<Cpu, ItsError> {
        let mut answer = Err(ItsError::NotMapped(lpi));
        let mut moved = None;
        self.invalidation.begin_move();
        let mut commands = made_in_order(|| {
            let route = self.routes.of(lpi)?;
            let bound = self.collections.of_cpu(to);
            answer = bound.map(|_| cpu_of(route.collection));
            let (collection, target) = bound.ok()?;
            let from = self.collections.target(route.collection)?;
            let new = EventRoute { collection, ..route };
            if new == route {
                return None;
            }
            moved = Some((route, new));
            Some(self.movi(lpi, new, from, target))
        });
        let result = self.queue.run_raw(&self.frame, Context::Task, &mut commands);
        drop(commands);
        let Err(FailedRun { error, .. }) = result else {
            self.invalidation.end_move();
            return answer;
        };
        if let Some((old, new)) = moved {
            self.undo_move(lpi, old, new, error);
        } else {
            self.invalidation.end_move();
        }
        Err(error.at(self.frame.base))
    }

    /// Changes the route of an event and returns the commands that move it. Must be called with the
    /// queue's lock held.
    ///
    /// The invalidation is needed because the redistributor may have cached the LPI's configuration
    /// while it was an earlier target; MOVI doesn't invalidate it (IHI 0069 §5.1.1, §5.3).
    fn movi(&self, lpi: Lpi, new: EventRoute, from: RdBase, to: RdBase) -> [Command; 4] {
        self.routes.set(lpi, Some(new));
        let (device, event) = (new.device, new.event_id());
        [
            Command::Movi { device, event, collection: new.collection },
            Command::Inv { device, event },
            Command::Sync { target: from },
            Command::Sync { target: to },
        ]
    }

    /// Disables an LPI. Messages that arrive while it is disabled stay pending. On return, the new
    /// configuration is in effect at its redistributor.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the LPI is not mapped; [`ItsError::Fault`] if the ITS does not
    /// complete the invalidation.
    pub fn mask(&self, lpi: Lpi) -> Result<(), ItsError> {
        self.lpis().disable(lpi).map_err(|_| ItsError::NotMapped(lpi))?;
        self.invalidate(lpi)
    }

    /// Enables an LPI.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the LPI is not mapped; [`ItsError::Fault`] if the ITS does not
    /// complete the invalidation.
    pub fn unmask(&self, lpi: Lpi) -> Result<(), ItsError> {
        self.lpis().enable(lpi).map_err(|_| ItsError::NotMapped(lpi))?;
        self.invalidate(lpi)
    }

    /// Changes an LPI's priority; the two low bits are ignored. On return, the new priority is in
    /// effect at its redistributor.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the LPI is not mapped; [`ItsError::Fault`] if the ITS does not
    /// complete the invalidation.
    pub fn set_priority(&self, lpi: Lpi, priority: Priority) -> Result<(), ItsError> {
        self.lpis().set_priority(lpi, priority).map_err(|_| ItsError::NotMapped(lpi))?;
        self.invalidate(lpi)
    }

    /// Makes an LPI pending, as a message from its device would, or clears its pending state.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the LPI is not mapped; [`ItsError::Fault`] if the ITS does not
    /// complete the command.
    pub fn set_pending(&self, lpi: Lpi, pending: Pending) -> Result<(), ItsError> {
        self.run_on_event(lpi, |device, event| match pending {
            Pending::Set => Command::Int { device, event },
            Pending::Clear => Command::Clear { device, event },
        })
    }

    /// Returns an LPI's event and the CPU to which it is delivered.
    ///
    /// Context: any.
    pub fn event_of(&self, lpi: Lpi) -> Option<(DeviceId, EventId, Cpu)> {
        let route = self.routes.of(lpi)?;
        Some((route.device, route.event_id(), cpu_of(route.collection)))
    }

    /// Returns the message that makes an LPI pending when its device sends it.
    ///
    /// Context: any.
    pub fn message(&self, lpi: Lpi) -> Option<MsiMessage> {
        let route = self.routes.of(lpi)?;
        Some(MsiMessage { address: self.doorbell_of(route.device), data: route.event_id().get() })
    }

    /// Invalidates an LPI's configuration at its redistributor, using the redistributor's register
    /// if possible, and the INV command otherwise.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the LPI is not mapped; [`ItsError::Fault`] if the ITS does not
    /// complete the command.
    pub fn invalidate(&self, lpi: Lpi) -> Result<(), ItsError> {
        match self.invalidation.invalidate(lpi, &self.routes) {
            Some(()) => Ok(()),
            None => self.run_on_event(lpi, |device, event| Command::Inv { device, event }),
        }
    }

    /// Runs one command for an event, and a SYNC for the redistributor that is the event's target
    /// when the command enters the queue.
    fn run_on_event(
        &self,
        lpi: Lpi,
        command: impl Fn(DeviceId, EventId) -> Command,
    ) -> Result<(), ItsError> {
        let mut answer = Err(ItsError::NotMapped(lpi));
        let mut commands = made_in_order(|| {
            let route = self.routes.of(lpi)?;
            let target = self.collections.target(route.collection)?;
            answer = Ok(());
            Some([command(route.device, route.event_id()), Command::Sync { target }])
        });
        let result = self.queue.run_raw(&self.frame, Context::Any, &mut commands);
        drop(commands);
        result.map_err(|failed| failed.error.at(self.frame.base))?;
        answer
    }

    fn undo_move(&self, lpi: Lpi, old: EventRoute, new: EventRoute, error: QueueError) {
        if let QueueError::Stalled(Some(Command::Movi { .. })) = error {
            self.routes.set(lpi, Some(old));
            return self.invalidation.end_move();
        }
        // The ITS has executed the MOVI or may still do so. Undo the MOVI with another one. If the
        // queue has no room for it, the recorded route is still correct, because it describes the
        // result of the queued commands.
        let mut back = made_in_order(|| {
            let from = self.collections.target(new.collection)?;
            let to = self.collections.target(old.collection)?;
            Some(self.movi(lpi, old, from, to))
        });
        if let Err(error) = self.queue.try_post(&self.frame, &mut back) {
            self.note(error.at(self.frame.base));
        }
    }
}
