//! Bus power management: negotiation, D0 entry and exit, suspend and resume.

use super::bus::{Bus, listed};
use super::function_table::{Function, FunctionState};
use super::interrupt_table::InterruptTable;
use super::link::Link;
use super::{Vectors, VpciError};
use crate::channel::Channel;
use crate::protocol::{Request, Status, Version};
use alloc::boxed::Box;

impl Bus {
    /// Turns the bus off, and closes its channel by dropping it. Freed vectors are released even if
    /// the host did not confirm their deletion. Vectors that are still allocated are masked at the
    /// root, and stay allocated until they are freed. The root's domain is kept.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns an error if the host did not confirm. The bus is closed nevertheless.
    pub fn close(&self) -> Result<(), VpciError> {
        self.turn_off(VpciError::Closed, Link::closed)
    }

    /// Turns the bus off, e.g. before hibernation, and closes its channel by dropping it. Functions
    /// stay attached and vectors stay allocated, but the host's messages are void. Each vector is
    /// masked at the root until its owner unmasks it after a [`resume`](Self::resume). Drivers must
    /// already have stopped their functions, and no other task may be inside a call on the bus.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns an error if the host did not confirm or the channel failed. The bus is suspended
    /// nevertheless, unless it is closed.
    pub fn suspend(&self) -> Result<(), VpciError> {
        let result = self.turn_off(VpciError::Suspended, Link::suspended);
        self.with_interrupts(InterruptTable::lose_messages);
        result
    }

    /// Turns a suspended bus on again over another channel. The bus keeps its protocol version,
    /// which the host must support. Functions that the host still lists are assigned their
    /// resources again, and each message is requested again, for the same vector and its current
    /// target. The answers may be different messages: before vectors are unmasked, the caller must
    /// write the messages returned by [`compose`](msi_types::MsiParent::compose) to every function.
    /// A function that the host refuses or no longer lists is [gone](super::BusEvent::Gone).
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns [`VpciError::NotSuspended`] or [`VpciError::Closed`] if the bus is in the wrong
    /// state, and other errors if the host does not answer or refuses the version, the bus or a
    /// message. In the latter cases, the channel is dropped and the bus stays suspended.
    pub fn resume(&self, channel: Box<dyn Channel>) -> Result<(), VpciError> {
        self.with_link(|link| link.resume(channel))?;
        let resumed = self.turn_on_again();
        if let Err(error) = resumed {
            // Return this error, because it is the first one. A host that was silent is not waited
            // for once more: the end of its channel turns the bus off.
            if let VpciError::Silent(_) = error {
                self.with_link(|link| link.may_be_on = false);
            }
            let _ = self.suspend();
        }
        resumed
    }

    fn turn_on_again(&self) -> Result<(), VpciError> {
        self.negotiate(&[self.version])?;
        self.query_relations()?;
        self.power_on()?;
        let suspended = |function: &Function| matches!(function.state, FunctionState::Suspended(_));
        for id in self.with_link(|link| listed(link, suspended))? {
            let assigned = self.assign(id);
            self.with_link(|link| {
                match assigned {
                    // The host may have removed the function, and put another one in its slot.
                    _ if !link.functions.is_present(id) => {}
                    Ok(bars) => link.functions.set_state(id, FunctionState::Ready(bars)),
                    Err(VpciError::Refused { .. }) => link.functions.remove(id.slot),
                    Err(error) => return Err(error),
                }
                Ok(())
            })?;
        }
        self.create_again()
    }

    /// Requests lost messages again.
    fn create_again(&self) -> Result<(), VpciError> {
        let mut last = None;
        while let Some((hwirq, interrupt)) =
            self.with_interrupts(|interrupts| interrupts.next_lost(last))
        {
            last = Some(hwirq);
            let created = self.create(hwirq, &interrupt);
            let is_present = self.with_link(|link| link.functions.is_present(interrupt.function));
            match created {
                Err(error) if is_present => return Err(VpciError::NotRecreated(error)),
                // The driver of a function that was removed must free the vector.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn negotiate(&self, versions: &[Version]) -> Result<Version, VpciError> {
        for version in versions {
            let operation = "query version";
            match self.ask_status(operation, &Request::QueryVersion(version.to_wire()), None)? {
                Status::REVISION_MISMATCH => {}
                status if status.is_success() => return Ok(*version),
                status => return Err(VpciError::Refused { operation, status }),
            }
        }
        Err(VpciError::NoVersion)
    }

    pub(super) fn query_relations(&self) -> Result<(), VpciError> {
        let operation = "query relations";
        self.notify(operation, &Request::QueryRelations, None)?;
        self.wait(operation, |link| Ok(link.has_relations.then_some(())))
    }

    /// Turns the bus on. The host refuses this if a previous guest ended without turning the bus
    /// off. In that case, turns the bus off and tries again.
    pub(super) fn power_on(&self) -> Result<(), VpciError> {
        let operation = "enter D0";
        let entry = Request::D0Entry { window: self.config.window };
        self.with_link(|link| link.may_be_on = true);
        if self.ask_status(operation, &entry, None)?.is_success() {
            return Ok(());
        }
        for id in self.with_link(|link| listed(link, |_| true))? {
            self.notify("release resources", &Request::ReleaseResources(id.slot), None)?;
        }
        self.ask_status("exit D0", &Request::D0Exit, None)?;
        match self.ask_status(operation, &entry, None)? {
            status if status.is_success() => Ok(()),
            status => Err(VpciError::Refused { operation, status }),
        }
    }

    /// Masks all vectors, turns the bus off and drops its channel.
    fn turn_off(
        &self,
        end: VpciError,
        after: impl FnOnce(&mut Link, &Vectors),
    ) -> Result<(), VpciError> {
        let mut last = None;
        while let Some(hwirq) = self.with_interrupts(|interrupts| interrupts.next_after(last)) {
            self.vectors.mask(hwirq);
            last = Some(hwirq);
        }
        let result = self.power_off();
        // Drop the channel without holding the lock: this may wait for the host. The task that
        // drops it releases the vectors afterwards.
        let channel = self.with_link(|link| link.close(end));
        if channel.is_some() || self.with_link(|link| link.host_is_gone()) {
            drop(channel);
            self.with_link(|link| after(link, &self.vectors));
        }
        result
    }

    fn power_off(&self) -> Result<(), VpciError> {
        // A host that has not negotiated would not answer.
        let is_off = self.with_link(|link| link.end().is_none() && !link.may_be_on);
        if is_off {
            return Ok(());
        }
        let ready = |function: &Function| matches!(function.state, FunctionState::Ready(_));
        for id in self.with_link(|link| listed(link, ready))?.into_iter().rev() {
            self.notify("release resources", &Request::ReleaseResources(id.slot), None)?;
        }
        let operation = "exit D0";
        match self.ask_status(operation, &Request::D0Exit, None)? {
            status if status.is_success() => Ok(()),
            status => Err(VpciError::Refused { operation, status }),
        }
    }
}
