//! Requests: messages from guest to host, such as the resources that a guest assigns to a function.

use super::{
    BARS, Codec, InterruptDescriptor, InterruptForm, ProtocolError, Reader, Slot,
    TranslatedInterrupt, Writer, kind,
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
        /// Guest physical address of the configuration window: 8 KiB that begin with the number of
        /// the selected slot, and end with 4 KiB of its configuration space.
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
        Self::blank(from.u32(0)?)?.through(&mut from)
    }

    /// Writes the message to `out` and returns its length in bytes.
    ///
    /// # Errors
    /// Returns [`ProtocolError`] if `out` is too short, or if the form of an interrupt cannot
    /// represent it.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut to = Writer::new(out);
        to.u32(self.kind())?;
        self.through(&mut to)?;
        Ok(to.length())
    }

    /// Returns the request with this message type, whose fields a message will replace.
    fn blank(kind: u32) -> Result<Self, ProtocolError> {
        let slot = Slot::default();
        let assign = |form| Self::AssignResources(AssignedResources::new(slot, form));
        let interrupt = InterruptDescriptor::BLANK;
        let create = |form| Self::CreateInterrupt { slot, form, interrupt };
        Ok(match kind {
            kind::QUERY_PROTOCOL_VERSION => Self::QueryVersion(0),
            kind::QUERY_BUS_RELATIONS => Self::QueryRelations,
            kind::D0_ENTRY => Self::D0Entry { window: 0 },
            kind::D0_EXIT => Self::D0Exit,
            kind::QUERY_RESOURCES => Self::QueryResources(slot),
            kind::RESOURCES_RELEASED => Self::ReleaseResources(slot),
            kind::EJECTION_COMPLETE => Self::EjectionComplete(slot),
            kind::POWER_STATE_CHANGE => Self::PowerChange { slot, state: PowerState::D0 },
            kind::RESOURCES_ASSIGNED => assign(ResourcesForm::V1),
            kind::RESOURCES_ASSIGNED2 => assign(ResourcesForm::V2),
            kind::RESOURCES_ASSIGNED3 => assign(ResourcesForm::V3),
            kind::CREATE_INTERRUPT2 => create(InterruptForm::V2),
            kind::CREATE_INTERRUPT3 => create(InterruptForm::V3),
            kind::DELETE_INTERRUPT | kind::DELETE_INTERRUPT2 => {
                Self::DeleteInterrupt { slot, interrupt: TranslatedInterrupt::BLANK }
            }
            other => return Err(ProtocolError::UnknownType(other)),
        })
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
                InterruptForm::V2 => kind::CREATE_INTERRUPT2,
                InterruptForm::V3 => kind::CREATE_INTERRUPT3,
            },
            Self::DeleteInterrupt { .. } => kind::DELETE_INTERRUPT,
            Self::EjectionComplete(_) => kind::EJECTION_COMPLETE,
        }
    }

    fn through(self, by: &mut impl Codec) -> Result<Self, ProtocolError> {
        Ok(match self {
            Self::QueryVersion(version) => Self::QueryVersion(by.u32(version)?),
            Self::QueryRelations | Self::D0Exit => self,
            Self::D0Entry { window } => {
                by.reserved(4)?;
                Self::D0Entry { window: by.u64(window)? }
            }
            Self::QueryResources(slot) => Self::QueryResources(slot.through(by)?),
            Self::ReleaseResources(slot) => Self::ReleaseResources(slot.through(by)?),
            Self::EjectionComplete(slot) => Self::EjectionComplete(slot.through(by)?),
            Self::AssignResources(it) => Self::AssignResources(it.through_request(by)?),
            Self::PowerChange { slot, state } => {
                let slot = slot.through(by)?;
                let state = match by.u32(if state == PowerState::D0 { 1 } else { 4 })? {
                    1 => PowerState::D0,
                    4 => PowerState::D3,
                    other => return Err(ProtocolError::BadPowerState(other)),
                };
                Self::PowerChange { slot, state }
            }
            Self::CreateInterrupt { slot, form, interrupt } => {
                let slot = slot.through(by)?;
                Self::CreateInterrupt { slot, form, interrupt: interrupt.through(form, by)? }
            }
            Self::DeleteInterrupt { slot, interrupt } => {
                let slot = slot.through(by)?;
                Self::DeleteInterrupt { slot, interrupt: interrupt.through(by)? }
            }
        })
    }
}

/// Length of one memory resource in bytes.
const RESOURCE: usize = 20;

/// Maximum number of interrupts in one assignment: 500 resources minus the base address registers.
const MAX_INTERRUPTS: u32 = 494;

/// Form of an assignment, which determines the length of each interrupt in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ResourcesForm {
    /// 16 bytes for each interrupt. OpenVMM's client uses this form under all versions.
    V1,
    /// 72 bytes for each interrupt. Linux and this crate's guests use this form.
    V2,
    /// 80 bytes for each interrupt.
    V3,
}

impl ResourcesForm {
    const fn interrupt_length(self) -> usize {
        match self {
            Self::V1 => 16,
            Self::V2 => 72,
            Self::V3 => 80,
        }
    }
}

/// An assignment of resources to a function. Memory resources are ignored, because the guest itself
/// programs the base address registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AssignedResources {
    /// The function.
    pub slot: Slot,
    /// Form of the message.
    pub form: ResourcesForm,
    /// Number of interrupts requested by the assignment. 0 for guests that request interrupts
    /// individually.
    pub interrupts: u32,
}

impl AssignedResources {
    /// Creates an assignment with no interrupts.
    pub const fn new(slot: Slot, form: ResourcesForm) -> Self {
        Self { slot, form, interrupts: 0 }
    }

    /// Passes a completion's fields. A completion contains only the requested descriptors.
    pub(super) fn through(self, by: &mut impl Codec) -> Result<Self, ProtocolError> {
        let slot = self.slot.through(by)?;
        by.reserved(BARS * RESOURCE)?;
        let interrupts = by.u32(self.interrupts)?;
        by.reserved(4)?;
        if interrupts > MAX_INTERRUPTS {
            return Err(ProtocolError::BadCount { count: interrupts, limit: MAX_INTERRUPTS });
        }
        (0..interrupts).try_for_each(|_| by.reserved(self.form.interrupt_length()))?;
        Ok(Self { slot, interrupts, ..self })
    }

    /// Passes a request's fields. A request without interrupts still ends with one empty
    /// descriptor: Linux, FreeBSD and OpenVMM's client reserve room for it, and no known guest
    /// sends less.
    pub(super) fn through_request(self, by: &mut impl Codec) -> Result<Self, ProtocolError> {
        let assigned = self.through(by)?;
        by.padding(if assigned.interrupts == 0 { self.form.interrupt_length() } else { 0 })?;
        Ok(assigned)
    }
}
