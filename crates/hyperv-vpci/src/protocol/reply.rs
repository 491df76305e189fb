//! Completions of requests. A guest knows by its request what the completion holds.
//!
//! Each parser answers the payload of a success, or the host's status. A failure may be as short
//! as its status.

use super::{
    AssignedResources, BARS, ProtocolError, Reader, ResourcesForm, Slot, TranslatedInterrupt,
    Writer,
};
use core::fmt;

/// Result of a request: an NTSTATUS. Negative numbers are failures.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u32);

impl Status {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// The host does not speak the proposed version.
    pub const REVISION_MISMATCH: Self = Self(0xc000_0059);
    /// The host does not know the request.
    pub const NOT_SUPPORTED: Self = Self(0xc000_00bb);
    /// The request is malformed, or not possible in the present state.
    pub const BAD_DATA: Self = Self(0xc000_090b);

    /// The status with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns true unless the number is negative as an NTSTATUS.
    pub const fn is_success(self) -> bool {
        self.0.cast_signed() >= 0
    }

    /// Parses a completion that is a status alone.
    ///
    /// # Errors
    /// [`ProtocolError::Truncated`].
    pub fn parse(completion: &[u8]) -> Result<Self, ProtocolError> {
        Reader::new(completion).u32().map(Self)
    }

    /// Writes the completion to `out` and returns its length in bytes.
    ///
    /// # Errors
    /// [`ProtocolError::NoRoom`].
    pub fn emit(self, out: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut to = Writer::new(out);
        to.u32(self.0)?;
        Ok(to.length())
    }

    fn read(from: &mut Reader<'_>) -> Result<Result<(), Self>, ProtocolError> {
        let status = Self(from.u32()?);
        Ok(if status.is_success() { Ok(()) } else { Err(status) })
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({self})")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// Parses what follows a successful status.
fn parse<T>(
    completion: &[u8],
    rest: impl FnOnce(&mut Reader<'_>) -> Result<T, ProtocolError>,
) -> Result<Result<T, Status>, ProtocolError> {
    let mut from = Reader::new(completion);
    match Status::read(&mut from)? {
        Ok(()) => rest(&mut from).map(Ok),
        Err(status) => Ok(Err(status)),
    }
}

/// Answer to [`Request::QueryVersion`](super::Request::QueryVersion). Guests look at the status
/// alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionReply {
    /// The result.
    pub status: Status,
    /// A version of the host's, as it is on the wire.
    pub version: u32,
}

impl VersionReply {
    /// Writes the completion to `out` and returns its length in bytes.
    ///
    /// # Errors
    /// [`ProtocolError::NoRoom`].
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut to = Writer::new(out);
        to.u32(self.status.0)?;
        to.u32(self.version)?;
        Ok(to.length())
    }
}

/// Answer to [`Request::QueryResources`](super::Request::QueryResources): the base address
/// registers as they read after ones were written. Registers of 64 bits take two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarsReply(pub [u32; BARS]);

impl BarsReply {
    /// Parses the completion.
    ///
    /// # Errors
    /// [`ProtocolError::Truncated`].
    pub fn parse(completion: &[u8]) -> Result<Result<Self, Status>, ProtocolError> {
        parse(completion, |from| {
            let mut bars = [0; BARS];
            for bar in &mut bars {
                *bar = from.u32()?;
            }
            Ok(Self(bars))
        })
    }

    /// Writes the completion to `out` and returns its length in bytes.
    ///
    /// # Errors
    /// [`ProtocolError::NoRoom`].
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut to = Writer::new(out);
        to.u32(Status::SUCCESS.0)?;
        self.0.iter().try_for_each(|bar| to.u32(*bar))?;
        Ok(to.length())
    }
}

/// Answer to [`Request::CreateInterrupt`](super::Request::CreateInterrupt).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptReply(pub TranslatedInterrupt);

impl InterruptReply {
    /// Parses the completion.
    ///
    /// # Errors
    /// [`ProtocolError::Truncated`].
    pub fn parse(completion: &[u8]) -> Result<Result<Self, Status>, ProtocolError> {
        parse(completion, |from| {
            from.u32()?;
            TranslatedInterrupt::read(from).map(Self)
        })
    }

    /// Writes the completion to `out` and returns its length in bytes.
    ///
    /// # Errors
    /// [`ProtocolError::NoRoom`].
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut to = Writer::new(out);
        to.u32(Status::SUCCESS.0)?;
        to.u32(0)?;
        self.0.write(&mut to)?;
        Ok(to.length())
    }
}

/// Answer to [`Request::AssignResources`](super::Request::AssignResources), in the layout of the
/// request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AssignedReply(pub Slot);

impl AssignedReply {
    /// Parses the completion.
    ///
    /// # Errors
    /// [`ProtocolError`]: the completion is shorter than one without interrupts, or names no slot.
    pub fn parse(completion: &[u8]) -> Result<Result<Self, Status>, ProtocolError> {
        parse(completion, |from| {
            AssignedResources::read(ResourcesForm::V2, from).map(|assigned| Self(assigned.slot))
        })
    }

    /// Writes the completion to `out` and returns its length in bytes.
    ///
    /// # Errors
    /// [`ProtocolError::NoRoom`].
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, ProtocolError> {
        let mut to = Writer::new(out);
        to.u32(Status::SUCCESS.0)?;
        AssignedResources::new(self.0, ResourcesForm::V2).write_completion(&mut to)?;
        Ok(to.length())
    }
}
