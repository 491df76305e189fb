//! Notices: messages from host to guest that don't answer a request.

use super::{Codec, ProtocolError, Reader, SLOTS, Slot, Writer, kind};

/// A message from host to guest that doesn't answer a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// Lists all functions on the bus. A function that is missing from the list was removed.
    Relations(Relations<'a>),
    /// Asks the guest to eject a function. The guest must answer with
    /// [`EjectionComplete`](super::Request::EjectionComplete) once it no longer uses the function.
    Eject(Slot),
    /// A function changed, so the guest must request the list again.
    InvalidateDevice(Slot),
    /// The bus changed, so the guest must request the list again.
    InvalidateBus,
}

impl<'a> Notice<'a> {
    /// Parses a host's message.
    ///
    /// # Errors
    /// Returns [`ProtocolError`] for the first invalid field.
    pub fn parse(message: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut from = Reader::new(message);
        match from.u32(0)? {
            kind::BUS_RELATIONS => Relations::read(RelationsForm::V1, &mut from),
            kind::BUS_RELATIONS2 => Relations::read(RelationsForm::V2, &mut from),
            kind::EJECT => Slot::default().through(&mut from).map(Self::Eject),
            kind::INVALIDATE_DEVICE => {
                Slot::default().through(&mut from).map(Self::InvalidateDevice)
            }
            kind::INVALIDATE_BUS => Ok(Self::InvalidateBus),
            other => Err(ProtocolError::UnknownType(other)),
        }
    }

    /// Writes the message to `out` and returns its length in bytes.
    ///
    /// # Errors
    /// Returns [`ProtocolError::NoRoom`] if `out` is too short.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut to = Writer::new(out);
        match self {
            Self::Relations(relations) => relations.write(&mut to)?,
            Self::Eject(slot) => emit_slot(kind::EJECT, *slot, &mut to)?,
            Self::InvalidateDevice(slot) => emit_slot(kind::INVALIDATE_DEVICE, *slot, &mut to)?,
            Self::InvalidateBus => _ = to.u32(kind::INVALIDATE_BUS)?,
        }
        Ok(to.length())
    }
}

fn emit_slot(kind: u32, slot: Slot, to: &mut Writer<'_>) -> Result<(), ProtocolError> {
    to.u32(kind)?;
    slot.through(to).map(drop)
}

/// Form of bus relations in messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RelationsForm {
    /// 20 bytes for each function.
    V1,
    /// 28 bytes for each function, which include a NUMA node.
    V2,
}

impl RelationsForm {
    /// Returns the length of a function's description in bytes.
    pub const fn description_length(self) -> usize {
        match self {
            Self::V1 => 20,
            Self::V2 => 28,
        }
    }
}

/// A validated list of a bus's functions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Relations<'a> {
    form: RelationsForm,
    descriptions: &'a [u8],
}

impl<'a> Relations<'a> {
    /// Encodes descriptions into `room`.
    ///
    /// # Errors
    /// Returns [`ProtocolError::NoRoom`] if `room` is too short, or [`ProtocolError::BadCount`] for
    /// more than [`SLOTS`] functions.
    pub fn new(
        form: RelationsForm,
        functions: impl IntoIterator<Item = DeviceDescription>,
        room: &'a mut [u8],
    ) -> Result<Self, ProtocolError> {
        let mut to = Writer::new(room);
        for function in functions {
            function.through(form, &mut to)?;
        }
        let length = to.length();
        check_count(length / form.description_length())?;
        Ok(Self { form, descriptions: room.get(..length).unwrap_or_default() })
    }

    /// Returns the length in bytes of a message with this number of functions.
    pub(crate) const fn message_length(form: RelationsForm, functions: usize) -> usize {
        8 + functions * form.description_length()
    }

    /// Returns the descriptions in message order.
    pub fn functions(&self) -> impl ExactSizeIterator<Item = DeviceDescription> + use<'a> {
        let form = self.form;
        self.descriptions.chunks_exact(form.description_length()).map(move |bytes| {
            // Every description was validated when the message was parsed.
            DeviceDescription::default().through(form, &mut Reader::new(bytes)).unwrap_or_default()
        })
    }

    /// Returns the form of the message.
    pub const fn form(&self) -> RelationsForm {
        self.form
    }

    fn read(form: RelationsForm, from: &mut Reader<'a>) -> Result<Notice<'a>, ProtocolError> {
        let count = from.u32(0)?;
        let too_many = ProtocolError::BadCount { count, limit: LIMIT };
        let count = usize::try_from(count).map_err(|_| too_many)?;
        check_count(count)?;
        let descriptions = from.take(count * form.description_length())?;
        for bytes in descriptions.chunks_exact(form.description_length()) {
            DeviceDescription::default().through(form, &mut Reader::new(bytes))?;
        }
        Ok(Notice::Relations(Self { form, descriptions }))
    }

    fn write(&self, to: &mut Writer<'_>) -> Result<(), ProtocolError> {
        to.u32(match self.form {
            RelationsForm::V1 => kind::BUS_RELATIONS,
            RelationsForm::V2 => kind::BUS_RELATIONS2,
        })?;
        let count = self.descriptions.len() / self.form.description_length();
        to.u32(u32::try_from(count).unwrap_or(LIMIT))?;
        to.slice(self.descriptions)
    }
}

/// [`SLOTS`] as a `u32`, the type of counts in messages.
const LIMIT: u32 = 256;

fn check_count(count: usize) -> Result<(), ProtocolError> {
    if count <= SLOTS {
        return Ok(());
    }
    Err(ProtocolError::BadCount { count: u32::try_from(count).unwrap_or(u32::MAX), limit: LIMIT })
}

/// A function's description. The guest receives the description before it can read configuration
/// space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct DeviceDescription {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Programming interface.
    pub interface: u8,
    /// Subclass code.
    pub subclass: u8,
    /// Base class code.
    pub class: u8,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Slot on the bus.
    pub slot: Slot,
    /// Serial number. Guests derive the slot's name from this number.
    pub serial: u32,
    /// NUMA node. The first form of bus relations does not contain the node.
    pub node: Option<u16>,
}

impl DeviceDescription {
    /// Returns `true` if both descriptions are of the same function. Slot, vendor, device and
    /// serial number identify a function. The function's other fields may change during its
    /// lifetime; for example, the NUMA node changes when the guest migrates to another host.
    pub fn is_same_function(&self, other: &Self) -> bool {
        let identity = |of: &Self| (of.slot, of.vendor, of.device, of.serial);
        identity(self) == identity(other)
    }

    fn through(self, form: RelationsForm, by: &mut impl Codec) -> Result<Self, ProtocolError> {
        Ok(Self {
            vendor: by.u16(self.vendor)?,
            device: by.u16(self.device)?,
            revision: by.u8(self.revision)?,
            interface: by.u8(self.interface)?,
            subclass: by.u8(self.subclass)?,
            class: by.u8(self.class)?,
            subsystem_vendor: by.u16(self.subsystem_vendor)?,
            subsystem: by.u16(self.subsystem)?,
            slot: self.slot.through(by)?,
            serial: by.u32(self.serial)?,
            node: match form {
                RelationsForm::V1 => None,
                RelationsForm::V2 => {
                    let flags = by.u32(if self.node.is_some() { NODE_VALID } else { 0 })?;
                    let node = by.u16(self.node.unwrap_or(0))?;
                    by.reserved(2)?;
                    (flags & NODE_VALID != 0).then_some(node)
                }
            },
        })
    }
}

/// Description flag: the NUMA node is valid.
const NODE_VALID: u32 = 1;
