//! A host's saved state, for live migration.
//!
//! The state must be saved while no thread serves the channel and no function sends. The state
//! includes the answer to a request that was received but not answered yet, so the guest receives
//! each answer exactly once, from either the source or the destination. Rings are part of guest
//! memory, but the host's own indices are not. The VMM must save these indices separately
//! ([`RingIndices`](crate::ring::RingIndices)).

use super::injection::Target;
use super::offer_table::{Ejection, Mapping, is_target};
use super::{
    FunctionInterrupts, Host, HostConfig, HostError, HostFunction, Injection, Reply, RestoreError,
};
use crate::protocol::reply::{AssignedReply, BarsReply, InterruptReply, Status, VersionReply};
use crate::protocol::{BARS, Slot, TranslatedInterrupt, Version};
use alloc::sync::Arc;
use alloc::vec::Vec;
use msi_types::MsiMessage;

/// Format version that this crate saves.
const FORMAT: u32 = 1;

/// A host's saved state.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SavedHost {
    /// Version of this format.
    pub format: u32,
    /// Protocol version in wire format, if it was negotiated.
    pub version: Option<u32>,
    /// Address of the configuration window while the bus is on.
    pub window: Option<u64>,
    /// `true` if the guest must still be sent the list of functions.
    pub relations_pending: bool,
    /// Transaction ID of a request, and the answer that has not been sent yet.
    pub reply: Option<(u64, SavedReply)>,
    /// Functions, in ascending slot order.
    pub functions: Vec<SavedFunction>,
}

/// A function's saved state.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SavedFunction {
    /// Slot in wire format.
    pub slot: u32,
    /// `true` if the guest has assigned resources.
    pub is_assigned: bool,
    /// `true` if the guest must still be asked to eject the function.
    pub ejection_pending: bool,
    /// `true` if the guest has been asked to eject the function.
    pub ejection_was_sent: bool,
    /// The function's messages.
    pub mappings: Vec<SavedMapping>,
}

/// A message's saved state.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SavedMapping {
    /// The first vector's data.
    pub data: u32,
    /// Vector and VP index for each of the message's vectors.
    pub targets: Vec<(u32, u16)>,
}

/// Answer that was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SavedReply {
    /// Only a status.
    Status(u32),
    /// Answer to a proposed version: status, version.
    Version(u32, u32),
    /// Base address registers.
    Bars([u32; BARS]),
    /// Granted message: count, address, data.
    Interrupt(u16, u64, u32),
    /// Assigned resources: slot.
    Assigned(u32),
}

impl Host {
    /// Creates a host's end that continues from a saved state. `functions` must contain every
    /// function in the state. Their device models send interrupts with the returned objects, which
    /// are in the same order as `functions`.
    ///
    /// # Errors
    /// Returns [`RestoreError`] if the state is not valid for this configuration and these
    /// functions.
    pub fn restore(
        config: HostConfig,
        injection: Injection,
        functions: &[HostFunction],
        saved: &SavedHost,
    ) -> Result<(Self, Vec<Arc<FunctionInterrupts>>), RestoreError> {
        let mut host = Self::new(config, injection)?;
        let mut senders = Vec::new();
        senders.try_reserve_exact(functions.len()).map_err(|_| HostError::NoMemory)?;
        for function in functions {
            senders.push(host.offer(*function)?);
        }
        host.version = saved.checked_version(config.highest)?;
        host.window = saved.window;
        host.relations_pending = saved.relations_pending;
        host.reply = match saved.reply {
            Some((id, reply)) => Some((id, reply.checked()?)),
            None => None,
        };
        let mut before = None;
        for function in &saved.functions {
            if before.is_some_and(|before| before >= function.slot) {
                return Err(RestoreError::NoFunction(function.slot));
            }
            before = Some(function.slot);
            host.restore_function(function)?;
        }
        Ok((host, senders))
    }

    /// Saves the host's state. The caller must ensure that no thread serves the channel and no
    /// function sends.
    pub fn save(&self) -> SavedHost {
        SavedHost {
            format: FORMAT,
            version: self.version.map(Version::to_wire),
            window: self.window,
            relations_pending: self.relations_pending,
            reply: self.reply.map(|(id, reply)| (id, reply.into())),
            functions: self
                .functions
                .iter()
                .map(|offered| SavedFunction {
                    slot: offered.slot().to_wire(),
                    is_assigned: offered.is_assigned,
                    ejection_pending: offered.ejection == Ejection::Pending,
                    ejection_was_sent: offered.ejection == Ejection::Asked,
                    mappings: offered
                        .mappings
                        .iter()
                        .map(|mapping| SavedMapping {
                            data: mapping.data,
                            targets: offered
                                .targets(*mapping)
                                .map(|target| (target.vector, target.processor))
                                .collect(),
                        })
                        .collect(),
                })
                .collect(),
        }
    }

    fn restore_function(&mut self, saved: &SavedFunction) -> Result<(), RestoreError> {
        let none = RestoreError::NoFunction(saved.slot);
        let slot = Slot::from_wire(saved.slot).map_err(|_| none)?;
        let is_on = self.window.is_some();
        let offered = self.functions.get_mut(slot).ok_or(none)?;
        let consistent = (is_on || !saved.is_assigned)
            && (saved.is_assigned || saved.mappings.is_empty())
            && (is_on || !saved.ejection_was_sent)
            && !(saved.ejection_pending && saved.ejection_was_sent);
        if !consistent {
            return Err(RestoreError::Inconsistent);
        }
        offered.is_assigned = saved.is_assigned;
        offered.ejection = match (saved.ejection_pending, saved.ejection_was_sent) {
            (true, _) => Ejection::Pending,
            (false, true) => Ejection::Asked,
            (false, false) => Ejection::None,
        };
        saved.mappings.iter().try_for_each(|mapping| self.restore_mapping(slot, mapping))
    }

    fn restore_mapping(&mut self, slot: Slot, saved: &SavedMapping) -> Result<(), RestoreError> {
        let data = saved.data;
        let count = u16::try_from(saved.targets.len()).unwrap_or(0);
        let bad = RestoreError::BadMapping { slot, vector: data, count };
        let mapping = Mapping { data, count };
        let targets = || {
            saved
                .targets
                .iter()
                .map(|(vector, processor)| Target { vector: *vector, processor: *processor })
        };
        let first = targets().next().ok_or(bad)?;
        let (config, injection) = (&self.config, &self.injection);
        let each_fits = mapping
            .data()
            .zip(targets())
            .all(|(data, target)| is_target(config, injection, Mapping { data, count: 1 }, target));
        if !self.functions.allows(config, injection, slot, mapping) || !each_fits {
            return Err(bad);
        }
        let offered = self.functions.get_mut(slot).ok_or(bad)?;
        offered.insert(mapping, first)?;
        for (data, target) in mapping.data().zip(targets()) {
            offered.set_target(data, target);
        }
        Ok(())
    }
}

impl SavedHost {
    fn checked_version(&self, highest: Version) -> Result<Option<Version>, RestoreError> {
        if self.format != FORMAT {
            return Err(RestoreError::UnknownFormat(self.format));
        }
        let Some(wire) = self.version else {
            let is_new = self.window.is_none() && !self.relations_pending;
            // After a refused proposal, there may be a pending answer even though no version was
            // negotiated.
            let refused = matches!(self.reply, None | Some((_, SavedReply::Version(..))));
            return if is_new && refused { Ok(None) } else { Err(RestoreError::Inconsistent) };
        };
        let known = Version::from_wire(wire).filter(|version| *version <= highest);
        known.map(Some).ok_or(RestoreError::UnknownVersion(wire))
    }
}

impl SavedReply {
    fn checked(self) -> Result<Reply, RestoreError> {
        Ok(match self {
            Self::Status(status) => Reply::Status(Status::new(status)),
            Self::Version(status, version) => {
                Reply::Version(VersionReply { status: Status::new(status), version })
            }
            Self::Bars(bars) => Reply::Bars(BarsReply(bars)),
            Self::Interrupt(count, address, data) => {
                let message = MsiMessage { address, data };
                Reply::Interrupt(InterruptReply(TranslatedInterrupt { count, message }))
            }
            Self::Assigned(slot) => {
                let slot = Slot::from_wire(slot).map_err(|_| RestoreError::NoFunction(slot))?;
                Reply::Assigned(AssignedReply(slot))
            }
        })
    }
}

impl From<Reply> for SavedReply {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Status(status) => Self::Status(status.get()),
            Reply::Version(VersionReply { status, version }) => {
                Self::Version(status.get(), version)
            }
            Reply::Bars(BarsReply(bars)) => Self::Bars(bars),
            Reply::Interrupt(InterruptReply(TranslatedInterrupt { count, message })) => {
                Self::Interrupt(count, message.address, message.data)
            }
            Reply::Assigned(AssignedReply(slot)) => Self::Assigned(slot.to_wire()),
        }
    }
}
