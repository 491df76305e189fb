//! Handlers of a guest's requests. Each request is validated completely before any state changes.

use super::offer_table::Ejection;
use super::{Host, HostError, Reply};
use crate::protocol::reply::{AssignedReply, BarsReply, InterruptReply, Status, VersionReply};
use crate::protocol::{
    AssignedResources, Delivery, InterruptDescriptor, InterruptForm, ProtocolError, Request,
    ResourcesForm, Slot, TranslatedInterrupt, Version,
};
use msi_types::MsiMessage;

/// Length of the configuration window in bytes.
const WINDOW_LENGTH: u64 = 0x2000;

impl Host {
    /// Handles a request and returns the answer. `message` is `None` for a request that is longer
    /// than any that this host supports.
    pub(super) fn answer(&mut self, message: Option<&[u8]>) -> Result<Reply, HostError> {
        let Some(message) = message else {
            let known = self.version.ok_or(HostError::OutOfOrder);
            return known.map(|_| Reply::Status(Status::NOT_SUPPORTED));
        };
        match (Request::parse(message), self.version) {
            (Ok(Request::QueryVersion(version)), None) => self.negotiate(version),
            (_, None) | (Ok(Request::QueryVersion(_)), Some(_)) => Err(HostError::OutOfOrder),
            (Ok(request), Some(version)) => {
                Ok(self.carry_out(version, &request).unwrap_or_else(Reply::Status))
            }
            (Err(ProtocolError::UnknownType(_)), Some(_)) => {
                Ok(Reply::Status(Status::NOT_SUPPORTED))
            }
            (Err(_), Some(_)) => Ok(Reply::Status(Status::BAD_DATA)),
        }
    }

    fn negotiate(&mut self, wire: u32) -> Result<Reply, HostError> {
        let highest = self.config.highest;
        let known = Version::from_wire(wire).filter(|version| *version <= highest);
        if let Some(version) = known {
            self.check_list(version, self.functions.iter().len())?;
        }
        self.version = known;
        let status = known.map_or(Status::REVISION_MISMATCH, |_| Status::SUCCESS);
        Ok(Reply::Version(VersionReply { status, version: highest.to_wire() }))
    }

    fn carry_out(&mut self, version: Version, request: &Request) -> Result<Reply, Status> {
        match request {
            Request::QueryVersion(_) => return Err(Status::BAD_DATA),
            Request::QueryRelations => self.relations_pending = true,
            Request::D0Entry { window } => self.power_on(*window)?,
            Request::D0Exit => self.power_off()?,
            Request::QueryResources(slot) => {
                let offered = self.functions.get(*slot).ok_or(Status::BAD_DATA)?;
                return Ok(Reply::Bars(BarsReply(offered.function.bars)));
            }
            Request::AssignResources(assigned) => return self.assign(version, *assigned),
            Request::ReleaseResources(slot) => {
                let offered = self.functions.get_mut(*slot).filter(|of| of.is_assigned);
                offered.ok_or(Status::BAD_DATA)?.release();
            }
            Request::PowerChange { slot, .. } => {
                self.functions.get(*slot).ok_or(Status::BAD_DATA)?;
            }
            Request::CreateInterrupt { slot, form, interrupt } => {
                return self.create(version, *slot, *form, interrupt);
            }
            Request::DeleteInterrupt { slot, interrupt } => {
                let MsiMessage { address, data } = interrupt.message;
                let offered = self.functions.get_mut(*slot).ok_or(Status::BAD_DATA)?;
                if address != self.config.address || !offered.delete(data) {
                    return Err(Status::BAD_DATA);
                }
            }
            Request::EjectionComplete(slot) => {
                let asked = self.functions.get(*slot).filter(|of| of.ejection == Ejection::Asked);
                asked.ok_or(Status::BAD_DATA)?;
                self.functions.remove(*slot);
                self.relations_pending = true;
            }
        }
        Ok(Reply::Status(Status::SUCCESS))
    }

    fn power_on(&mut self, window: u64) -> Result<(), Status> {
        let window = window & !self.config.vtom;
        let aligned = window.is_multiple_of(0x1000) && window.checked_add(WINDOW_LENGTH).is_some();
        if self.window.is_some() || !aligned {
            return Err(Status::BAD_DATA);
        }
        self.window = Some(window);
        // A guest may rely on the list without asking for it, so the host sends it before the
        // answer.
        self.relations_pending = true;
        Ok(())
    }

    fn power_off(&mut self) -> Result<(), Status> {
        self.window.take().ok_or(Status::BAD_DATA)?;
        self.functions.power_off();
        Ok(())
    }

    fn assign(&mut self, version: Version, assigned: AssignedResources) -> Result<Reply, Status> {
        let slot = assigned.slot;
        let is_known = match assigned.form {
            ResourcesForm::V1 | ResourcesForm::V2 => true,
            ResourcesForm::V3 => version >= Version::V1_4,
        };
        if !is_known || self.window.is_none() {
            return Err(Status::BAD_DATA);
        }
        // Linux and OpenVMM's client request interrupts individually. Windows requests interrupts
        // individually only from version 1.6 on, which this host does not support.
        if assigned.interrupts != 0 {
            return Err(Status::NOT_SUPPORTED);
        }
        // A second assignment replaces the first one and keeps the messages.
        self.functions.get_mut(slot).ok_or(Status::BAD_DATA)?.is_assigned = true;
        Ok(Reply::Assigned(AssignedReply(slot)))
    }

    fn create(
        &mut self,
        version: Version,
        slot: Slot,
        form: InterruptForm,
        interrupt: &InterruptDescriptor,
    ) -> Result<Reply, Status> {
        let is_on = self.functions.get(slot).is_some_and(|offered| offered.is_assigned);
        if !is_on || form > version.interrupts() {
            return Err(Status::BAD_DATA);
        }
        // With fixed delivery, the interrupt would have to be delivered to each of the processors.
        // With lowest priority, one of them suffices, and the host selects the first.
        if interrupt.delivery == Delivery::Fixed && interrupt.processors.indices().len() > 1 {
            return Err(Status::NOT_SUPPORTED);
        }
        let mapped = self.functions.map(&self.config, &self.injection, slot, interrupt);
        let (mapping, first) = mapped.ok_or(Status::BAD_DATA)?;
        let offered = self.functions.get_mut(slot).ok_or(Status::BAD_DATA)?;
        offered.insert(mapping, first).map_err(|_| Status::BAD_DATA)?;
        let message = MsiMessage { address: self.config.address, data: mapping.data };
        let translated = TranslatedInterrupt { count: mapping.count, message };
        Ok(Reply::Interrupt(InterruptReply(translated)))
    }
}
