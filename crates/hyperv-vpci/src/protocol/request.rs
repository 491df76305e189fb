//! Requests: messages from guest to host.

use super::{
    AssignedResources, InterruptDescriptor, InterruptForm, ProtocolError, Reader, ResourcesForm,
    Slot, TranslatedInterrupt, Writer, kind,
};

/// A function's power state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PowerState {
    /// On.
    D0,
    /// Off.
    D3,
}

/// A message from guest to host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Request {
    /// Proposes a version in wire format. The version need not be one that this crate supports.
    QueryVersion(u32),
    /// Asks for the list of functions. The host sends it as a notice.
    QueryRelations,
    /// Turns the bus on.
    D0Entry {
        /// Guest physical address of the [configuration window](crate::config_window).
        window: u64,
    },
    /// Turns the bus off.
    D0Exit,
    /// Asks for the values that a function's base address registers return after all ones were
    /// written to them.
    QueryResources(Slot),
    /// Assigns resources to a function.
    AssignResources(AssignedResources),
    /// Releases a function's resources.
    ReleaseResources(Slot),
    /// Changes a function's power state.
    PowerChange {
        /// The function.
        slot: Slot,
        /// The new state.
        state: PowerState,
    },
    /// Asks for a message for an interrupt.
    CreateInterrupt {
        /// The function.
        slot: Slot,
        /// Form of the descriptor.
        form: InterruptForm,
        /// The interrupt.
        interrupt: InterruptDescriptor,
    },
    /// Returns a message to the host so that it is deleted.
    DeleteInterrupt {
        /// The function.
        slot: Slot,
        /// The host's answer to the request that created the interrupt.
        interrupt: TranslatedInterrupt,
    },
    /// Confirms that the guest no longer uses an ejected function.
    EjectionComplete(Slot),
}

impl Request {
    /// Parses a guest's message.
    ///
    /// # Errors
    /// Returns [`ProtocolError`] for the first invalid field.
    pub fn parse(message: &[u8]) -> Result<Self, ProtocolError> {
        let mut from = Reader::new(message);
        let number = from.u32()?;
        match number {
            kind::QUERY_PROTOCOL_VERSION => from.u32().map(Self::QueryVersion),
            kind::QUERY_BUS_RELATIONS => Ok(Self::QueryRelations),
            kind::D0_ENTRY => {
                from.u32()?;
                Ok(Self::D0Entry { window: from.u64()? })
            }
            kind::D0_EXIT => Ok(Self::D0Exit),
            _ => Self::parse_for_slot(number, &mut from),
        }
    }

    fn parse_for_slot(number: u32, from: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        match number {
            kind::QUERY_RESOURCES => slot(from).map(Self::QueryResources),
            kind::RESOURCES_RELEASED => slot(from).map(Self::ReleaseResources),
            kind::EJECTION_COMPLETE => slot(from).map(Self::EjectionComplete),
            kind::POWER_STATE_CHANGE => {
                let slot = slot(from)?;
                let state = match from.u32()? {
                    1 => PowerState::D0,
                    4 => PowerState::D3,
                    other => return Err(ProtocolError::BadPowerState(other)),
                };
                Ok(Self::PowerChange { slot, state })
            }
            kind::RESOURCES_ASSIGNED => assigned(ResourcesForm::V1, from),
            kind::RESOURCES_ASSIGNED2 => assigned(ResourcesForm::V2, from),
            kind::RESOURCES_ASSIGNED3 => assigned(ResourcesForm::V3, from),
            kind::CREATE_INTERRUPT => created(InterruptForm::V1, from),
            kind::CREATE_INTERRUPT2 => created(InterruptForm::V2, from),
            kind::CREATE_INTERRUPT3 => created(InterruptForm::V3, from),
            kind::DELETE_INTERRUPT | kind::DELETE_INTERRUPT2 => Ok(Self::DeleteInterrupt {
                slot: slot(from)?,
                interrupt: TranslatedInterrupt::read(from)?,
            }),
            other => Err(ProtocolError::UnknownType(other)),
        }
    }

    /// Writes the message to `out` and returns its length in bytes.
    ///
    /// # Errors
    /// Returns [`ProtocolError::NoRoom`] if `out` is too short, or another [`ProtocolError`] such
    /// as [`VectorTooWide`](ProtocolError::VectorTooWide) if an interrupt cannot be represented in
    /// its form.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut to = Writer::new(out);
        to.u32(self.kind())?;
        match self {
            Self::QueryVersion(version) => to.u32(*version)?,
            Self::QueryRelations | Self::D0Exit => {}
            Self::D0Entry { window } => {
                to.u32(0)?;
                to.u64(*window)?;
            }
            Self::QueryResources(slot)
            | Self::ReleaseResources(slot)
            | Self::EjectionComplete(slot) => to.u32(slot.to_wire())?,
            Self::AssignResources(assigned) => assigned.write_request(&mut to)?,
            Self::PowerChange { slot, state } => {
                to.u32(slot.to_wire())?;
                to.u32(match state {
                    PowerState::D0 => 1,
                    PowerState::D3 => 4,
                })?;
            }
            Self::CreateInterrupt { slot, form, interrupt } => {
                to.u32(slot.to_wire())?;
                interrupt.write(*form, &mut to)?;
            }
            Self::DeleteInterrupt { slot, interrupt } => {
                to.u32(slot.to_wire())?;
                interrupt.write(&mut to)?;
            }
        }
        Ok(to.length())
    }

    const fn kind(&self) -> u32 {
        match self {
            Self::QueryVersion(_) => kind::QUERY_PROTOCOL_VERSION,
            Self::QueryRelations => kind::QUERY_BUS_RELATIONS,
            Self::D0Entry { .. } => kind::D0_ENTRY,
            Self::D0Exit => kind::D0_EXIT,
            Self::QueryResources(_) => kind::QUERY_RESOURCES,
            Self::AssignResources(assigned) => match assigned.form {
                ResourcesForm::V1 => kind::RESOURCES_ASSIGNED,
                ResourcesForm::V2 => kind::RESOURCES_ASSIGNED2,
                ResourcesForm::V3 => kind::RESOURCES_ASSIGNED3,
            },
            Self::ReleaseResources(_) => kind::RESOURCES_RELEASED,
            Self::PowerChange { .. } => kind::POWER_STATE_CHANGE,
            Self::CreateInterrupt { form, .. } => match form {
                InterruptForm::V1 => kind::CREATE_INTERRUPT,
                InterruptForm::V2 => kind::CREATE_INTERRUPT2,
                InterruptForm::V3 => kind::CREATE_INTERRUPT3,
            },
            Self::DeleteInterrupt { .. } => kind::DELETE_INTERRUPT,
            Self::EjectionComplete(_) => kind::EJECTION_COMPLETE,
        }
    }
}

fn slot(from: &mut Reader<'_>) -> Result<Slot, ProtocolError> {
    Slot::from_wire(from.u32()?)
}

fn assigned(form: ResourcesForm, from: &mut Reader<'_>) -> Result<Request, ProtocolError> {
    AssignedResources::read(form, from).map(Request::AssignResources)
}

fn created(form: InterruptForm, from: &mut Reader<'_>) -> Result<Request, ProtocolError> {
    let slot = slot(from)?;
    let interrupt = InterruptDescriptor::read(form, from)?;
    Ok(Request::CreateInterrupt { slot, form, interrupt })
}
